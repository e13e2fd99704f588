"""Replays of topics into files: offset ranges (`topic_range`), or the rows that a training run saw, in order (`run`).

Neither needs torch, and both write a complete file or no file.
"""
