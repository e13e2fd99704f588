"""Producers: what generates examples, and the sink that takes them to a raw topic or a file."""
