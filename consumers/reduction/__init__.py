"""The reduction family in training: its tensor form, the span predictor and its trainer."""
