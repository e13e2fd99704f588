"""Comparisons of small frames and files, against plain Python."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import closing
from functools import partial
from math import log
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from broker.clients import Connection
from consumers.compare.comparison import compare, differences
from consumers.compare.files import FileSource
from consumers.compare.profile import DatasetProfile, balance
from consumers.compare.rows import Rows, rows_of_lines
from consumers.compare.sources import common_family, source_named
from consumers.compare.texts import RUN_BYTES, DistinctCount, TextTally, byte_runs
from consumers.replay.formats import open_writer
from schema.errors import UnknownFamilyError, UsageError
from schema.family import Family
from schema.json_form import json_lines
from schema.parts import load_part
from schema.reduction import FAMILY as REDUCTION
from schema.registry import FAMILIES
from schema.response_measures import response_measures
from schema.scenario import FAMILY as SCENARIO
from schema.shingles import shingles
from schema.text_measures import distinct_ngrams, nearest, place_keys
from tests import scenarios

NEAR = 0.8
CELLS = list(SCENARIO.cells())
SAMPLES: dict[str, pl.DataFrame] = {name: load_part(family, "samples")(60) for name, family in FAMILIES.items()}
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


def tallied(family: Family, *frames: pl.DataFrame) -> DatasetProfile:
    tally = DatasetProfile(family, NEAR)
    for frame in frames:
        tally.take(Rows(frame))
    return tally


def narrow(count: int) -> pl.DataFrame:
    """Scenarios of one target and one type, of any capacity."""
    cells = [
        number
        for number, cell in enumerate(CELLS)
        if (cell["authenticity_target"], cell["complexity_type"]) == ("excellent", "baseline")
    ]
    numbers = [cells[number % len(cells)] + len(CELLS) * (number // len(cells)) for number in range(count)]
    return scenarios.frame([scenarios.row(number) for number in numbers])


def write(path: Path, frame: pl.DataFrame, family: Family) -> Path:
    with path.open("wb") as stream:
        lines = partial(json_lines, family=family)
        with closing(open_writer(path, stream, family.wire, lines)) as writer:
            for piece in frame.iter_slices(25):
                writer.write(piece)
    return path


def no_broker() -> Connection:
    raise AssertionError("a comparison of files asked for a broker")


@given(st.lists(st.text("abλ", max_size=12), max_size=6))
def test_byte_runs_are_those_of_plain_python(texts: list[str]) -> None:
    runs, offsets = byte_runs(pl.Series(texts, dtype=pl.String))
    for number, text in enumerate(texts):
        data = text.encode()
        wanted = [data[place : place + RUN_BYTES] for place in range(max(len(data) - RUN_BYTES + 1, 1))]
        actual = runs[offsets[number] : offsets[number + 1]]
        assert actual.tolist() == [int.from_bytes(run, "little") for run in wanted]


@given(st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=6), st.integers(4, 100))
def test_the_distinct_count_does_not_depend_on_the_order_of_values(parts: list[list[int]], capacity: int) -> None:
    counts = [DistinctCount(capacity) for _ in range(2)]
    for part in parts:
        counts[0].take(np.array(part, dtype=np.uint64))
    counts[1].take(np.array([value for part in reversed(parts) for value in part], dtype=np.uint64))
    assert counts[0].distinct == counts[1].distinct
    distinct = {value for part in parts for value in part}
    assert counts[0].values == sum(map(len, parts))
    if len(distinct) <= capacity:
        assert counts[0].distinct == len(distinct)


def test_distinct_values_above_the_capacity_are_estimated() -> None:
    count = DistinctCount(capacity=4_000)
    for first in range(0, 200_000, 10_000):
        count.take(np.arange(first, first + 20_000, dtype=np.uint64))
    assert count.values == 400_000
    assert count.distinct == pytest.approx(210_000, rel=0.08)


def test_texts_taken_in_parts_are_measured_as_the_public_functions_measure_them() -> None:
    texts = SAMPLES["scenario"].select(SCENARIO.text)["context"]
    tally = TextTally(SCENARIO, NEAR, sample=40)
    for first in range(0, len(texts), 7):
        tally.take(texts[first : first + 7])
    chosen = np.sort(np.argsort(place_keys(0, len(texts)), kind="stable")[:40])
    assert tally.likeness() == (40, int((nearest(*shingles(texts.gather(chosen))) >= NEAR).sum()))
    assert tally.ngrams.ratio == distinct_ngrams(texts)


@families
def test_responses_are_measured_if_the_family_has_them(family: Family) -> None:
    frame = SAMPLES[family.name]
    measured = tallied(family, frame[:25], frame[25:]).report()["responses"]
    if family.response is None:
        assert measured is None
    else:
        assert measured == response_measures(frame["response"], frame["authenticity_target"])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12))
def test_balance_is_entropy_over_that_of_even_counts(counts: list[int]) -> None:
    evenness = balance(np.array(counts))
    shares = [count / sum(counts) for count in counts if count]
    entropy = -sum(share * log(share) for share in shares)
    assert evenness == pytest.approx(abs(entropy) / log(len(counts)) if len(counts) > 1 else 0.0)
    assert 0 <= evenness <= 1 + 1e-12


def test_balance_is_0_in_one_bin_and_1_in_even_bins() -> None:
    assert balance(np.array([7, 0, 0])) == balance(np.array([0, 0])) == 0
    assert balance(np.array([5, 5, 5, 5])) == pytest.approx(1)


@families
@hypothesis_settings(max_examples=8)
@given(data=st.data())
def test_a_profile_does_not_depend_on_how_rows_are_cut(family: Family, data: st.DataObject) -> None:
    frame = SAMPLES[family.name]
    cuts = sorted(data.draw(st.lists(st.integers(0, frame.height), max_size=4)))
    pieces = [frame[first:last] for first, last in zip([0, *cuts], [*cuts, frame.height], strict=True)]
    assert tallied(family, *pieces).report() == tallied(family, frame).report()


@families
def test_a_profile_counts_the_same_as_plain_python(family: Family) -> None:
    frame = SAMPLES[family.name]
    report = tallied(family, frame, frame[:9]).report()
    rows = [*frame.iter_rows(named=True), *frame[:9].iter_rows(named=True)]
    assert (report["rows"], report["rows_invalid"], report["duplicates"]) == (len(rows), 0, 9)
    derived = family.derive(pl.concat([frame, frame[:9]]).with_columns(record=pl.lit(0, dtype=pl.UInt32)))
    for axis in family.axes:
        codes = derived.select(axis.code.alias("code"))["code"].to_list()
        wanted = Counter(axis.bins[code] for code in codes if code is not None)
        part = report["axes"][axis.name]
        assert {name: count for name, count in part["bins"].items() if count} == wanted
        assert (part["covered"], part["total"]) == (len(wanted), len(axis.bins))
    assert sum(report["cells"]["rows"].values()) == len(rows)
    for column, part in report["numbers"].items():
        values = [row[column] for row in rows if row[column] is not None]
        if not values:
            assert part == {"min": None, "max": None, "mean": None}
            continue
        wanted_range = {"min": min(values), "max": max(values), "mean": sum(values) / len(values)}
        assert part == pytest.approx(wanted_range)


def test_the_narrow_set_covers_one_band_and_one_type_and_the_wide_one_all() -> None:
    old, new = tallied(SCENARIO, narrow(256)).report(), tallied(SCENARIO, scenarios.valid_rows(256)).report()
    covered = {
        side: [report["axes"][axis]["covered"] for axis in ("authenticity_target", "complexity_type")]
        for side, report in (("old", old), ("new", new))
    }
    assert covered == {"old": [1, 1], "new": [4, 8]}
    assert (old["cells"]["covered"], new["cells"]["covered"], new["cells"]["possible"]) == (4, 128, 128)
    missed = {quota["name"] for quota in old["quotas"] if not quota["ok"]}
    assert {"quota_excellent_share", "quota_baseline_share", "complexity_types", "authenticity_spread"} <= missed
    by_measure = {line["measure"]: line for line in differences(old, new)}
    assert by_measure["axes.complexity_type.covered"] == {
        "measure": "axes.complexity_type.covered",
        "a": 1,
        "b": 8,
        "difference": 7,
        "better": "b",
    }
    assert by_measure["axes.authenticity_target.balance"]["better"] == "b"
    assert by_measure["numbers.authenticity_score.mean"]["better"] is None


def test_the_side_with_the_smaller_share_of_bad_rows_is_better() -> None:
    one, many = scenarios.valid_rows(4), scenarios.valid_rows(40)
    a = tallied(SCENARIO, one, one[:1]).report()
    b = tallied(SCENARIO, many, many[:2]).report()
    line = next(line for line in differences(a, b) if line["measure"] == "duplicates")
    assert (line["a"], line["b"], line["difference"], line["better"]) == (1, 2, 1, "b")


def test_invalid_rows_are_counted_by_the_rules_they_break() -> None:
    frame = scenarios.valid_rows(8)
    wrong = frame.with_columns(
        authenticity_target=pl.lit("excellent"), response=pl.when(pl.int_range(8) == 0).then(None).otherwise("response")
    )
    report = tallied(SCENARIO, frame, wrong[:1]).report()
    assert (report["rows"], report["rows_invalid"]) == (9, 1)
    assert "response|nullability" in report["invalid_by_reason"]
    assert sum(report["axes"]["authenticity_target"]["bins"].values()) == 8


@families
@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".arrow"])
def test_every_file_format_gives_the_same_profile_as_its_rows(family: Family, ending: str, tmp_path: Path) -> None:
    frame = SAMPLES[family.name]
    source = FileSource(write(tmp_path / f"rows{ending}", frame, family))
    assert source.families() == [family.name]
    assert common_family([source], None) is family
    tally = DatasetProfile(family, NEAR)
    for rows in source.rows(family):
        tally.take(rows)
    assert tally.report() == tallied(family, frame).report()


def test_unreadable_lines_are_counted_by_reason() -> None:
    good = json_lines(SAMPLES["scenario"][:3], SCENARIO).splitlines()
    mistyped = json.dumps({**json.loads(good[0]), "authenticity_score": "high"}).encode()
    rows = rows_of_lines([*good, b"{", b"[1]", mistyped, b"7"], SCENARIO)
    assert rows.frame.height == 3
    assert rows.refused == {"not_json": 1, "not_an_object": 2, "wrong_type": 1}
    tally = DatasetProfile(SCENARIO, NEAR)
    tally.take(rows)
    assert (tally.report()["rows"], tally.report()["rows_invalid"]) == (7, 4)
    assert [len(rows.head(count)) for count in (0, 2, 5, 9)] == [0, 2, 5, 7]


def test_a_limit_reads_the_first_rows_of_each_side(tmp_path: Path) -> None:
    frame = SAMPLES["scenario"]
    paths = [write(tmp_path / f"{name}.jsonl", frame, SCENARIO) for name in "ab"]
    seen: list[tuple[int, int]] = []
    sources = [source_named(str(path), no_broker) for path in paths]
    compared = compare(
        SCENARIO, *sources, near=NEAR, limit=20, on_progress=lambda sides, rows: seen.append((sides, rows))
    )
    assert compared["a"] == {"source": str(paths[0]), **tallied(SCENARIO, frame[:20]).report()}
    assert {line["better"] for line in compared["differences"]} == {None}
    assert seen[-1] == (2, 40)


def test_sides_of_two_families_are_refused_in_a_line_that_names_both(tmp_path: Path) -> None:
    sources = [
        FileSource(write(tmp_path / f"{name}.parquet", frame, FAMILIES[name])) for name, frame in SAMPLES.items()
    ]
    with pytest.raises(UsageError, match=r"columns are those of reduction.*columns are those of scenario"):
        common_family(sources, None)
    with pytest.raises(UsageError, match="holds no rows of the family 'scenario'"):
        common_family(sources, "scenario")
    with pytest.raises(UnknownFamilyError):
        common_family(sources, "poetry")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("none.jsonl", None, "No such file"),
        ("empty.jsonl", b"", "does not begin with a JSON object"),
        ("other.jsonl", b'{"title": "x"}\n', "columns are those of no family"),
        ("torn.parquet", b"PAR1 and no more", "cannot be read"),
        ("torn.arrow", b"ARROW1 and no more", "cannot be read"),
        ("rows.csv", b"a,b", "no format is known"),
    ],
)
def test_a_file_that_cannot_be_compared_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, line: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=line) as caught:
        common_family([source_named(str(path), no_broker)], None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [b"", b'{"term": "x"}\n'])
def test_a_line_without_end_is_refused_before_it_is_read_whole(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "sparse.jsonl"
    path.write_bytes(first)
    # Zeros that take no room on the disk.
    os.truncate(path, 50 * 1024**3)
    with pytest.raises(UsageError, match=r"line [12] has over 50,331,648 bytes"):
        for part in FileSource(path).rows(FAMILIES["reduction"]):
            assert len(part) == 1
    if not first:
        with pytest.raises(UsageError, match=r"line 1 has over 50,331,648 bytes"):
            FileSource(path).families()


def test_a_name_that_is_neither_file_nor_topic_is_refused_without_a_broker() -> None:
    with pytest.raises(UsageError, match="neither a file nor a topic"):
        source_named("old", no_broker)


def test_a_family_without_prose_is_measured_in_characters() -> None:
    assert DatasetProfile(REDUCTION, NEAR).report()["ngram"] == "8 characters"
    assert DatasetProfile(SCENARIO, NEAR).report()["ngram"] == "4 words"
