"""The audit of one family: what its topics hold, compared with what its ledger says.

The audit reads the topics and believes nothing else, so it finds a loss whoever caused it:

- `view`: up to which offsets the audit reads, so that a running worker does not disturb it
- `scan`: the records of a topic up to these offsets, and their rows
- `ledger`, `clean`, `rejected`, `raw`: what one topic holds, as flat arrays
- `spans`: rows found compared with rows claimed, per raw record (pure)
- `ids`: example ids that stand in clean twice (pure)
- `fold`: what DuckDB holds compared with the sum of the ledger entries
- `run`: the audit itself; `report`: its result
"""
