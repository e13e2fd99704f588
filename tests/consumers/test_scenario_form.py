from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clients import Connection
from consumers.batches import Stamp
from consumers.feed import Feed, FeedOptions
from consumers.scenario.byte_tokens import BOS, EOS, FIRST_BYTE, PAD, SEP, SPECIAL_TOKENS, VOCABULARY_SIZE
from consumers.scenario.form import FORM
from consumers.scenario.tensors import EncodedScenarios, ScenarioBatch, decode_tokens
from consumers.sequence.cursor import Cursor
from consumers.sequence.lineage import LINEAGE
from schema.errors import FeedError
from schema.scenario import FAMILY
from tests.consumers.records import topic, write
from tests.scenarios import valid_rows

Triple = tuple[str, str, str]
CELLS = list(FAMILY.cells())

# UTF-8, and so a frame, cannot hold lone surrogates.
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
triples = st.lists(st.tuples(text, text, text), min_size=1, max_size=6)


def rows(texts: list[Triple]) -> pl.DataFrame:
    """Rows with these texts; the cell and the numbers of row i follow from i."""
    numbers = range(len(texts))
    data = {
        "context": [each[0] for each in texts],
        "request": [each[1] for each in texts],
        "response": [each[2] for each in texts],
        **{axis: [CELLS[number % len(CELLS)][axis] for number in numbers] for axis in FAMILY.cell_axes},
        "authenticity_score": [number / 8 for number in numbers],
        "effective_capacity": [number + 0.5 for number in numbers],
        "support_needed": [number + 0.25 for number in numbers],
        "example_id": [2**64 - 1 - number for number in numbers],
        "_source": [0 for _ in numbers],
        "_partition": [number % 3 for number in numbers],
        "_offset": [10 * number for number in numbers],
        "_row": [number + 7 for number in numbers],
    }
    kinds = {name: FAMILY.wire[name] for name in (*FORM.columns, "example_id")}
    return pl.DataFrame(data, schema={**kinds, **LINEAGE})


def cut(frame: pl.DataFrame, *numbers: int) -> ScenarioBatch:
    window = EncodedScenarios(frame, ("topic",))
    return window.batch(np.array(numbers, dtype=np.int64), Stamp(Cursor(), len(numbers), 0, 0))


def plain_tokens(texts: Triple) -> list[int]:
    context, request, response = ([FIRST_BYTE + byte for byte in each.encode()] for each in texts)
    return [BOS, *context, SEP, *request, SEP, *response, EOS]


@given(triples)
def test_tokens_and_masks_are_those_of_plain_python(texts: list[Triple]) -> None:
    batch = cut(rows(texts), *range(len(texts)))
    plain = [plain_tokens(each) for each in texts]
    width = max(map(len, plain))
    assert batch.tokens.tolist() == [row + [PAD] * (width - len(row)) for row in plain]
    assert batch.attention_mask.tolist() == [[place < len(row) for place in range(width)] for row in plain]
    learned = [row[len(row) - len(texts[number][2].encode()) - 1 :] for number, row in enumerate(plain)]
    assert [row[mask].tolist() for row, mask in zip(batch.tokens, batch.response_mask, strict=True)] == learned
    assert int(batch.tokens.max()) < VOCABULARY_SIZE


@given(triples)
def test_tokens_read_back_are_the_texts(texts: list[Triple]) -> None:
    batch = cut(rows(texts), *range(len(texts)))
    assert [decode_tokens(row) for row in batch.tokens] == texts


@given(triples, st.data())
def test_any_choice_of_rows_is_the_batch_of_those_rows(texts: list[Triple], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=8))
    batch = cut(rows(texts), *numbers)
    assert [decode_tokens(row) for row in batch.tokens] == [texts[number] for number in numbers]
    assert batch.cell.tolist() == numbers
    assert batch.authenticity_score.tolist() == [number / 8 for number in numbers]
    assert batch.capacity.tolist() == [number + 0.5 for number in numbers]
    assert batch.support_needed.tolist() == [number + 0.25 for number in numbers]
    assert batch.position.of_row(0) == ("topic", numbers[0] % 3, 10 * numbers[0], numbers[0] + 7)


@given(triples)
def test_a_rows_length_is_known_without_its_tokens(texts: list[Triple]) -> None:
    frame = rows(texts)
    assert frame.select(FORM.tokens).to_series().to_list() == [len(plain_tokens(each)) for each in texts]


def test_a_batch_may_have_no_rows() -> None:
    batch = cut(rows([("a", "b", "c")]))
    assert batch.tokens.shape == batch.response_mask.shape == (0, SPECIAL_TOKENS)
    assert len(batch) == batch.real_tokens == 0


def test_a_label_outside_its_axis_is_in_no_cell() -> None:
    frame = rows([("a", "b", "c"), ("d", "e", "f")]).with_columns(capacity_level=pl.Series(["none such", "high"]))
    assert cut(frame, 0, 1).cell.tolist() == [-1, CELLS.index({**CELLS[1], "capacity_level": "high"})]


@pytest.mark.parametrize("column", ["response", "authenticity_score"])
def test_a_row_without_a_text_or_number_is_refused(column: str) -> None:
    with pytest.raises(FeedError, match=f"no {column}"):
        cut(rows([("a", "b", "c")]).with_columns(pl.lit(None, dtype=FAMILY.wire[column]).alias(column)), 0)


def test_a_feed_gives_every_scenario_of_the_clean_topic_with_its_numbers(connection: Connection) -> None:
    written = valid_rows(150)
    write(connection, written, family=FAMILY)
    feed = Feed(connection, "scenario", split=None, batch_size=32, shuffle_seed=3, options=FeedOptions(bucket=True))
    assert feed.topics == (topic(connection, family=FAMILY),)
    expected = {row["example_id"]: row for row in written.iter_rows(named=True)}
    seen = []
    for batch in feed:
        assert isinstance(batch, ScenarioBatch)
        for number, example_id in enumerate(batch.example_id.tolist()):
            row = expected[example_id % 2**64]
            assert decode_tokens(batch.tokens[number]) == (row["context"], row["request"], row["response"])
            assert float(batch.authenticity_score[number]) == pytest.approx(row["authenticity_score"])
            assert float(batch.capacity[number]) == pytest.approx(row["effective_capacity"])
            assert float(batch.support_needed[number]) == pytest.approx(row["support_needed"])
            assert CELLS[int(batch.cell[number])] == {axis: row[axis] for axis in FAMILY.cell_axes}
            seen.append(row["example_id"])
    assert sorted(seen) == sorted(expected)
