"""The scenario family's tensor form."""
