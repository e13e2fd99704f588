"""Prompts and targets of documents, put together again, are the documents."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from consumers.source_code.completions import COLUMNS, prompts_and_targets

_TEXT = st.text(max_size=40)


@given(st.lists(st.tuples(_TEXT, _TEXT, st.sampled_from(["snapshot", "renamed", "completion"])), min_size=1))
def test_a_files_text_is_its_prompt_and_its_target(parts: list[tuple[str, str, str]]) -> None:
    rows = pl.DataFrame(
        {
            "text": [prompt + rest for prompt, rest, _ in parts],
            "kind": [kind for *_, kind in parts],
            "path": ["a.py"] * len(parts),
            "prompt": [prompt if kind == "completion" else None for prompt, _, kind in parts],
        },
        schema_overrides={"prompt": pl.String},
    ).with_columns(pl.lit(None, pl.String).alias(name) for name in ("message", "before", "after"))
    split = prompts_and_targets(rows.select(COLUMNS))
    assert split.select(pl.concat_str("prompt", "target")).to_series().to_list() == rows["text"].to_list()
    assert split["prompt"].to_list() == [prompt if kind == "completion" else "" for prompt, _, kind in parts]
