"""Faults of a model's answers: their names, which are values of `answer_fault`, and what a user can do about each."""

from __future__ import annotations

from collections.abc import Iterable

MISSING, MALFORMED, DUPLICATED = "answer_missing", "answer_malformed", "answer_duplicated"
WRONG_CELL, CUT_OFF, REFUSED = "answer_wrong_cell", "answer_cut_off", "answer_refused"
EMPTY, SERVER_ERROR = "answer_empty", "answer_server_error"
TIMED_OUT = "answer_timed_out"
BELOW_MINIMUM = "validation_below_minimum"
THINKING_ONLY, THINKING_CUT_OFF = "answer_thinking_only", "answer_thinking_cut_off"

_LESS_THINKING = (
    """turn its reasoning off, e.g. FEEDMILL_LLM_REQUEST='{"reasoning_effort": "none"}' or, for vLLM and llama.cpp, """
    """'{"chat_template_kwargs": {"enable_thinking": false}}'"""
)
_MORE_TOKENS = """raise max_tokens, e.g. FEEDMILL_LLM_REQUEST='{"max_tokens": 8000}', and the server's context length"""

TIMED_OUT_ADVICE = (
    "raise FEEDMILL_LLM_TIMEOUT_S, or ask for fewer scenarios a call with FEEDMILL_LLM_SCENARIOS_PER_CALL"
)

# {fault: a line of advice}. Other faults are mistakes of single scenarios, which are asked for again.
_ADVICE = {
    THINKING_ONLY: f"the model thought and gave no answer: {_LESS_THINKING}",
    THINKING_CUT_OFF: f"the length limit was reached inside the reasoning: {_LESS_THINKING}, or {_MORE_TOKENS}",
    CUT_OFF: f"the length limit was reached inside the answer: {_MORE_TOKENS}",
    EMPTY: "the server sent completions without text: check the model's chat template and the server's log",
    SERVER_ERROR: "the server sent HTTP 200 with an error instead of an answer: read the server's log",
    MALFORMED: "the model did not write the JSON asked for: choose a larger model, or one trained on instructions",
    TIMED_OUT: TIMED_OUT_ADVICE,
    BELOW_MINIMUM: "the validation model scored texts too low: choose a better model for writing, or lower "
    "FEEDMILL_LLM_VALIDATION_MINIMUM",
    REFUSED: "the model or its server refused to answer: choose another model",
}


def advice(reasons: Iterable[str]) -> list[str]:
    """Return a line of advice for each of `reasons` that has one.

    Example::

        advice(["answer_cut_off", "calculation_wrong"])  # one line, which begins with "answer_cut_off: "
    """
    return [f"{reason}: {_ADVICE[reason]}" for reason in reasons if reason in _ADVICE]
