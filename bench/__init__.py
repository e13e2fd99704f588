"""Benchmarks: each module's `run` measures one thing on this machine and returns its figures as a JSON object.

Every object has `name`, `rate`, `unit`, `elapsed_s`, `rows`, and `peers`: alternatives measured in the same run, with
the same keys. `feedmill bench NAME [--json]` runs a benchmark.
"""
