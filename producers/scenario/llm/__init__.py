"""The language-model backend: asks an OpenAI-compatible endpoint for scenarios and validates every answer.

`run` is the entry point. The journal of a run is on the raw topic: every call is one record with its rows, verdicts and
tokens. So a killed run resumes from its journal, and an answer that was paid for is never asked for again.
"""
