"""Coverage: how much of what could be generated has been, and whether every raw record was answered for.

Coverage is a fold of the ledger, so the store can be thrown away and folded anew. One process owns it:

- `entries`: ledger records -> sums (pure, over frames)
- `tables`, `store`: the DuckDB file; the one place that writes or reads it
- `fold`: the ledger topics -> store
- `report`, `dashboard`, `metrics`: what the store holds -> JSON, HTML, Prometheus (pure)
- `owner`: who owns the store, and where to ask them
- `service`: the owner that stays, over HTTP; `client`: ask whoever owns the store, or become its owner for a moment
"""
