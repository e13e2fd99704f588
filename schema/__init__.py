"""The definition of examples: families, rules, coverage axes, quotas, the record form, settings and the error tree.

Nothing here imports Kafka, Faust, DuckDB or torch. So a rule, a binning or an encoding can be called in a REPL on a
five-row frame.
"""
