"""The global sequence of a feed, without torch: which rows make which batch, from any cursor on.

`spec` holds all that decides the sequence, and `cursor` a place in it. `sources` and `blocks` give the order of
records, `stream` a source's rows, `mixing` each source's share of a window, and `planning` a window's batches.
`windows` puts them together.
"""
