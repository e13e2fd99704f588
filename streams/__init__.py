"""From raw to clean, rejected and ledger (Faust), and from the ledger to coverage (DuckDB, HTTP)."""
