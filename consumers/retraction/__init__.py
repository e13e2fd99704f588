"""Retract rows of clean, so that feeds and replays leave them out: `forget` finds the rows and writes the entries."""
