"""The refine stage: `<family>.raw` -> `clean`, `rejected` and `ledger`, every raw record answered for exactly once.

Read the modules in this order:

1. `decode`: bytes -> rows and dead letters.
2. `judge`: rows -> verdicts. `state` holds what verdicts build on: `dedup`, `near_duplicates` with `sketch`, and
   `gates`. `admission` is their compiled pass.
3. `augmenting`: clean rows -> new rows.
4. `ledger_entries`: verdicts -> ledger entries.
5. `outbound`: verdicts -> records.
6. `group_judge`: steps 1 to 5 for one group of raw records.
7. `transactions`: what a group writes, in one transaction.
8. `partition`: the numbered protocol of one raw partition. `rebuild` reads its state back from the topics.
9. `worker_partitions`: the partitions of one family that a worker owns.
"""
