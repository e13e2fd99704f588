"""The refine stage: `<family>.raw` -> `clean`, `rejected` and `ledger`, with one ledger entry for each raw record.

Read the modules in this order:

1. `decode`: bytes -> rows and dead letters.
2. `judge`: rows -> verdicts. Verdicts use the partition's `state`: `dedup`, `near_duplicates` with `sketch`, and
   `gates`. `admission` is the compiled pass over them.
3. `augmenting`: clean rows -> new rows.
4. `ledger_entries`: verdicts -> ledger entries.
5. `outbound`: verdicts -> records.
6. `group_judge`: steps 1 to 5 for one group of raw records.
7. `transactions`: write a group's records and the new position in one transaction.
8. `partition`: the numbered protocol of one raw partition. `rebuild` reads the partition's state back from the topics.
9. `worker_partitions`: the partitions of one family that a worker owns. `retraction_watch` reads the retracted ids,
   whose rows step 2 rejects.
"""
