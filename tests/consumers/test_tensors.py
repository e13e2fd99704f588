from __future__ import annotations

import logging

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consumers.batches import Stamp
from consumers.reduction import tensors
from consumers.reduction.alphabet import ALPHABET, BOS, EOS, PAD, VOCABULARY_SIZE
from consumers.reduction.form import FORM
from consumers.reduction.tensors import NO_SPAN, EncodedReductions, ReductionBatch, decode_tokens
from consumers.sequence.cursor import Cursor
from consumers.sequence.lineage import LINEAGE
from schema.errors import FeedError
from schema.reduction import FAMILY

terms = st.lists(st.text(ALPHABET, min_size=1, max_size=30), min_size=1, max_size=8)


def rows(
    texts: list[str], spans: list[tuple[int, int]] | None = None, steps: list[tuple[int, int]] | None = None
) -> pl.DataFrame:
    """Rows with these terms, spans and (step, all steps); by default a marker is at the end of its trace."""
    count = len(texts)
    spans = spans or [(0, len(text)) for text in texts]
    steps = steps or [(5, 5) if span == (0, 0) else (2, 5) for span in spans]
    data = {
        "term": texts,
        "span_start": [span[0] for span in spans],
        "span_end": [span[1] for span in spans],
        "step_k": [step for step, _ in steps],
        "steps_total": [total for _, total in steps],
        "size": range(count),
        "depth": range(100, 100 + count),
        "example_id": [2**64 - 1 - number for number in range(count)],
        "_source": [0] * count,
        "_partition": [number % 3 for number in range(count)],
        "_offset": [10 * number for number in range(count)],
        "_row": [number + 7 for number in range(count)],
    }
    kinds = {name: FAMILY.wire[name] for name in (*FORM.columns, "example_id")}
    return pl.DataFrame(data, schema={**kinds, **LINEAGE})


def cut(window: EncodedReductions, *numbers: int) -> ReductionBatch:
    return window.batch(np.array(numbers, dtype=np.int64), Stamp(Cursor(), len(numbers), 0, 0))


def batch(texts: list[str], spans: list[tuple[int, int]] | None = None) -> ReductionBatch:
    return cut(EncodedReductions(rows(texts, spans), ("topic",)), *range(len(texts)))


def plain_tokens(texts: list[str]) -> list[list[int]]:
    width = max(map(len, texts)) + 2
    coded = [[BOS, *(ALPHABET.index(character) + 3 for character in text), EOS] for text in texts]
    return [row + [PAD] * (width - len(row)) for row in coded]


@given(terms)
def test_tokens_and_mask_are_those_of_plain_python(texts: list[str]) -> None:
    cut_rows = batch(texts)
    assert cut_rows.tokens.dtype == torch.int64
    assert cut_rows.tokens.tolist() == plain_tokens(texts)
    assert cut_rows.attention_mask.tolist() == [[token != PAD for token in row] for row in plain_tokens(texts)]
    assert cut_rows.real_tokens == sum(len(text) + 2 for text in texts)


@given(terms)
def test_tokens_read_back_are_the_term(texts: list[str]) -> None:
    assert [decode_tokens(row) for row in batch(texts).tokens] == texts


@given(terms, st.data())
def test_any_choice_of_rows_is_the_batch_of_those_rows(texts: list[str], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=10))
    cut_rows = cut(EncodedReductions(rows(texts), ("topic",)), *numbers)
    assert cut_rows.tokens.tolist() == plain_tokens([texts[number] for number in numbers])
    assert cut_rows.position.offset.tolist() == [10 * number for number in numbers]
    assert cut_rows.size.tolist() == numbers
    assert cut_rows.depth.tolist() == [100 + number for number in numbers]
    assert cut_rows.position.of_row(0) == ("topic", numbers[0] % 3, 10 * numbers[0], numbers[0] + 7)


def test_a_batch_may_have_no_rows() -> None:
    cut_rows = cut(EncodedReductions(rows(["0"]), ("topic",)))
    assert cut_rows.tokens.shape == cut_rows.attention_mask.shape == (0, 2)
    assert len(cut_rows) == cut_rows.real_tokens == cut_rows.padding_share == 0


def test_a_marker_within_a_trace_is_logged_once_per_row_and_reducible(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "_warned", set())
    within = rows(["00", "01", "02"], [(0, 0), (0, 0), (0, 2)], [(2, 5), (3, 5), (4, 5)])
    with caplog.at_level(logging.WARNING, "feedmill.feed"):
        window = EncodedReductions(within, ("topic",))
        EncodedReductions(within, ("topic",))
    cut_rows = cut(window, 0, 1, 2)
    assert cut_rows.is_normal_form.tolist() == [False, False, False]
    assert cut_rows.span.tolist() == [[NO_SPAN, NO_SPAN], [NO_SPAN, NO_SPAN], [1, 3]]
    ending = "its term is treated as reducible"
    assert [record.getMessage() for record in caplog.records] == [
        f"example ffffffffffffffff: a normal-form marker at step 2 of 5 (topic/0 offset 0 row 7); {ending}",
        f"example fffffffffffffffe: a normal-form marker at step 3 of 5 (topic/1 offset 10 row 8); {ending}",
    ]


def test_a_marker_at_a_traces_end_is_a_normal_form_without_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "feedmill.feed"):
        cut_rows = cut(EncodedReductions(rows(["00"], [(0, 0)], [(5, 5)]), ("topic",)), 0)
    assert cut_rows.is_normal_form.tolist() == [True]
    assert cut_rows.span.tolist() == [[0, 0]]
    assert not caplog.records


@given(terms, st.data())
def test_token_spans_cover_the_characters_of_the_redex(texts: list[str], data: st.DataObject) -> None:
    spans = []
    for text in texts:
        start = data.draw(st.integers(0, len(text) - 1))
        spans.append((start, data.draw(st.integers(start + 1, len(text)))))
    cut_rows = batch(texts, spans)
    for text, (start, end), tokens, span in zip(texts, spans, cut_rows.tokens, cut_rows.span.tolist(), strict=True):
        assert decode_tokens(tokens[span[0] : span[1]]) == text[start:end]


def test_a_redex_at_the_terms_end_points_at_eos() -> None:
    cut_rows = batch(["\\.0", "(\\.0)1"], [(0, 0), (0, 6)])
    assert cut_rows.tokens[1, cut_rows.span[1, 1]] == EOS


def test_only_the_marker_is_a_normal_form() -> None:
    cut_rows = batch(["00", "00", "00"], [(0, 0), (0, 2), (1, 2)])
    assert cut_rows.is_normal_form.tolist() == [True, False, False]
    assert cut_rows.span.tolist() == [[0, 0], [1, 3], [2, 3]]


def test_ids_above_2_to_63_read_back_as_hex() -> None:
    assert batch(["0", "1"]).hex_ids == ["ffffffffffffffff", "fffffffffffffffe"]


def test_batches_share_no_memory_with_their_window() -> None:
    window = EncodedReductions(rows(["0", "1"]), ("topic",))
    cut(window, 0, 1).span.zero_()
    assert cut(window, 0, 1).span.tolist() == [[1, 2], [1, 2]]


def test_every_character_of_the_form_has_a_token_of_its_own() -> None:
    assert len(set(ALPHABET)) == len(ALPHABET) == VOCABULARY_SIZE - 3 == 66


def test_token_lengths_count_special_tokens() -> None:
    assert rows(["0", "\\.0"]).select(FORM.tokens).to_series().to_list() == [3, 5]


@pytest.mark.parametrize("text", ["λ0", "0 1", "0\n", "\x00"])
def test_a_foreign_character_is_refused(text: str) -> None:
    with pytest.raises(FeedError, match="foreign character"):
        batch(["0", text])


def test_a_missing_term_is_refused() -> None:
    with pytest.raises(FeedError, match="no term"):
        EncodedReductions(rows(["0"]).with_columns(term=pl.lit(None, dtype=pl.String)), ("topic",))


def test_moving_a_batch_keeps_its_lineage() -> None:
    original = batch(["0", "1"])
    moved = original.to("meta")
    assert moved.tokens.device.type == moved.example_id.device.type == "meta"
    assert moved.position is original.position
    assert moved.too_long == 0
