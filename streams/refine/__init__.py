"""The refine stage: `<family>.raw` -> `clean`, `rejected` and `ledger`, every raw record answered for exactly once.

Read in this order: `intake` (bytes -> rows), `chain` (rows -> verdicts), `state` (what the verdicts build on: `dedup`,
`near` with `sketch`, `gates`; `arrival` is their compiled pass), `augmenting` (clean rows -> new rows), `account`
(verdicts -> ledger entries), `outbound` (verdicts -> records), `partition` (the numbered protocol for one raw
partition), `rebuild` (the state, from the topics).
"""
