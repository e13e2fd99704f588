"""Refine workers (Faust: raw -> clean, rejected, ledger) and the coverage service (DuckDB, HTTP: ledger -> counts)."""
