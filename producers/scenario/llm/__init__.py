"""The language-model backend: asks an OpenAI-compatible endpoint for scenarios, and trusts nothing that it answers.

`run` is the way in. A run is a journal on the raw topic: every call is one record there, with its rows, its verdicts
and its tokens, so that a killed run goes on from what stands there and what was paid for is never asked for again.
"""
