"""Redrive: send rejected rows and dead letters to raw again, so that they are judged again.

`run` is the entry point and handles rows, `letters` handles dead letters, and `stage_records` reads the topics.
"""
