"""From a topic to a file: a stretch of it (`stretch`), or the very rows that a training run saw, in order (`run`).

Both need no torch and write a file whole or not at all.
"""
