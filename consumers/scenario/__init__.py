"""The scenario family in training: its tensor form."""
