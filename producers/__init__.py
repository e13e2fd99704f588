"""Producers: generate or ingest examples, and write them to a raw topic or a file."""
