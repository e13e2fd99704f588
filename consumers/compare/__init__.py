"""Compare two sets of rows: coverage, evenness, variety and quotas of each."""
