"""The reduction family's tensor form, the span predictor, its trainer and its evaluation."""
