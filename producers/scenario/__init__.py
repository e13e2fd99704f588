"""The scenario producer: planned cells, consistent numbers, and texts from a phrase grammar or a language model."""
