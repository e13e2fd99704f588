"""Coverage: how many rows each bin and cell has, and whether every raw record has a ledger entry.

Coverage is a fold of the ledger, so the store can be deleted and folded again. One process owns the store:

- `entries`: ledger records -> sums (pure, over frames)
- `tables`, `retraction_tables`, `store`: the DuckDB file; no other module reads or writes it
- `fold`: the ledger topics -> store; `retraction_fold`: the retractions -> store
- `report`, `dashboard`, `metrics`: the store's counts -> JSON, HTML, Prometheus (pure)
- `owner`: the owner's lock, and the address of its service
- `service`: the long-running owner, with an HTTP API; `client`: ask the service, or own the store for a moment
"""
