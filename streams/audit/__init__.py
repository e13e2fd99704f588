"""The audit of one family: the records and rows of its topics, compared with its ledger.

The audit trusts only the topics, so it finds a loss of any cause:

- `view`: the offsets up to which the audit reads, so that a running worker does not disturb it
- `scan`: the records of a topic up to these offsets, and their rows
- `ledger`, `clean`, `rejected`, `raw`: the content of one topic as flat arrays
- `rows_by_raw_offset`: rows and dead letters of a topic, by the raw offsets they came from
- `spans`: rows found compared with rows claimed, per raw record (pure)
- `ids`: example ids that are in clean twice (pure)
- `fold`: the counts of DuckDB compared with the sum of the ledger entries
- `run`: the audit itself; `report`: its result
"""
