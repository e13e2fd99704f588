"""The scenario producer: systematic cells, numbers that add up, and texts from a grammar or a language model."""
