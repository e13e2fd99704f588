"""The composer: texts from a grammar of phrases, chosen row by row by counters, written by compiled code.

`scenes`, `factors`, `tasks`, `requests`, `situations`, `replies` and `reply_frames` are the phrases, as data;
`grammar` says how they hang together; `engine` writes the texts of a block of rows, and `composing` makes the rows.
"""
