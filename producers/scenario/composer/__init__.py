"""The composer: writes scenario texts from a phrase grammar, with counter-based draws and compiled code.

The phrases are data. `scenes`, `factors` and `complexity_phrases` hold those of the context, `complexity_phrases`,
`requests` and `tasks` those of the request, and `reply_frames` and `replies` those of the response. `grammar` combines
them, `engine` writes the texts of a block of rows, and `composing` makes the rows.
"""
