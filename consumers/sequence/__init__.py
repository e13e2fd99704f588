"""The global sequence of a feed, without torch: which rows make which batch, from any cursor on.

`spec` says what decides it and `cursor` where one stands; `sources` and `blocks` give the order of records, `stream`
a source's rows, `mixing` each source's share of a window, `planning` a window's batches; `windows` puts them together.
"""
