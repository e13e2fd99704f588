"""The refine stage: `<family>.raw` -> `clean`, `rejected` and `ledger`, every raw record answered for exactly once.

Read in this order: `intake` (bytes -> rows), `chain` (rows -> verdicts), `account` (verdicts -> ledger entries),
`outbound` (verdicts -> records), `partition` (the numbered protocol for one raw partition).
"""
