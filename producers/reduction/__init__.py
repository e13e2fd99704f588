"""The reduction producer: normal-order reduction traces of random closed lambda terms, made by compiled code."""
