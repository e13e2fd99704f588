"""From a topic to a file: ranges of its offsets (`topic_range`), or the rows that a training run saw, in order (`run`).

Both need no torch and write a file whole or not at all.
"""
