"""The composer: writes scenario texts from a phrase grammar, with counter-based draws and compiled code.

`scenes`, `factors`, `tasks`, `requests`, `situations`, `replies` and `reply_frames` hold the phrases as data. `grammar`
combines them, `engine` writes the texts of a block of rows, and `composing` makes the rows.
"""
