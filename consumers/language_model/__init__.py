"""Causal language models of code and scenarios: base models, adapters, the training task, and run files in YAML."""
