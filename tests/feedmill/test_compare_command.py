"""`feedmill compare`, called from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.clients import Connection
from feedmill import compare_command
from feedmill.compare_plots import draw
from schema.json_form import json_lines
from schema.record import ARROW_STREAM, RAW
from schema.reduction import FAMILY as REDUCTION
from schema.response_measures import HUMAN
from schema.scenario import FAMILY as SCENARIO
from tests import reductions, scenarios
from tests.consumers.records import send, topic, write
from tests.feedmill.conftest import Command, caller


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command line without any broker: (exit status, stdout, stderr)."""
    monkeypatch.setenv("FEEDMILL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("FEEDMILL_BROKER_TIMEOUT_S", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return caller(capfd)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Paths of two files: scenarios of one cell, and scenarios of all cells."""
    old = scenarios.frame([scenarios.row(number * 128) for number in range(30)])
    paths = []
    for name, frame in (("old.jsonl", old), ("new.jsonl", scenarios.valid_rows(128))):
        path = tmp_path / name
        path.write_bytes(json_lines(frame, SCENARIO))
        paths.append(str(path))
    return paths[0], paths[1]


def line_of(out: str, name: str) -> list[str]:
    return next(line for line in out.splitlines() if line.startswith(f"{name} ")).split()


def test_two_files_are_compared_without_a_broker(alone: Command, files: tuple[str, str]) -> None:
    status, out, err = alone("compare", *files)
    assert status == 0
    assert "2 of 2 sides, 158 rows" in err
    assert line_of(out, "rows")[1:] == ["30", "128", "+98"]
    assert line_of(out, "complexity_type") == ["complexity_type", "1", "of", "8", "8", "of", "8", "+7", "B"]
    assert line_of(out, "authenticity_target") == ["authenticity_target", "1", "of", "4", "4", "of", "4", "+3", "B"]
    assert line_of(out, "cells") == ["cells", "1", "of", "128", "128", "of", "128", "+127", "B"]
    assert "NOT MET" in " ".join(line_of(out, "complexity_types"))
    # People's figures stand beside those of both files.
    assert "0.033" in line_of(out, "repeated sentences")
    assert "2.600" in line_of(out, "gzip ratio")
    assert "compare sets of like sizes, with --rows" in out
    measured = [line for line in out.splitlines() if "scenario: A is" not in line]
    assert max(map(len, measured)) <= 80

    status, out, _ = alone("compare", *files, "--rows", "30")
    assert status == 0
    assert line_of(out, "rows")[1:] == ["30", "30", "+0"]
    assert "--rows" not in out


def test_the_composer_covers_more_than_the_narrow_baseline(alone: Command, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{backend}.jsonl") for backend in ("narrow", "composer")]
    for path in paths:
        backend = Path(path).stem
        status, _, _ = alone(
            *("produce", "scenario", "--backend", backend, "--count", "300", "--seed", "3"),
            *("--workers", "1", "--out", path),
        )
        assert status == 0
    status, out, _ = alone("compare", *paths, "--json")
    assert status == 0
    compared = json.loads(out)
    axes = {side: compared[side]["axes"] for side in ("a", "b")}
    assert [axes[side]["authenticity_target"]["covered"] for side in axes] == [1, 4]
    assert [axes[side]["complexity_type"]["covered"] for side in axes] == [1, 8]
    assert compared["b"]["cells"]["covered"] == 128
    assert compared["a"]["rows_invalid"] == compared["b"]["rows_invalid"] == 0
    better = {line["measure"]: line["better"] for line in compared["differences"]}
    assert better["distinct_ngrams"] == better["cells.balance"] == "b"
    assert better["responses.repeated_sentences"] == better["responses.distinct_4grams"] == "b"
    assert better["responses.gzip_ratio"] == "b"


def test_json_is_one_object_with_both_sides_and_their_differences(alone: Command, files: tuple[str, str]) -> None:
    status, out, err = alone("compare", *files, "--json")
    assert (status, err) == (0, "")
    compared = json.loads(out)
    assert list(compared) == ["family", "a", "b", "human", "differences"]
    assert compared["human"] == {"responses": HUMAN}
    assert (compared["family"], compared["a"]["source"], compared["b"]["source"]) == ("scenario", *files)
    for line in compared["differences"]:
        values: list[Any] = [compared["a"], compared["b"]]
        for key in line["measure"].split("."):
            values = [value[key] for value in values]
        assert [line["a"], line["b"]] == values


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "mark"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_a_plot_is_a_file_of_its_ending(
    alone: Command, files: tuple[str, str], tmp_path: Path, ending: str, mark: bytes
) -> None:
    first, again = (tmp_path / f"{name}{ending}" for name in ("first", "again"))
    status, out, _ = alone("compare", *files, "--json", "--plot", str(first))
    assert status == 0
    assert first.read_bytes().startswith(mark)
    if ending == ".svg":
        # The SVG writer would add random names and the time.
        draw(SCENARIO, json.loads(out), again)
        assert again.read_bytes() == first.read_bytes()


def test_a_wrong_plot_option_is_an_error_before_anything_is_read(
    alone: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = alone("compare", "none.jsonl", "none.jsonl", "--plot", "picture.bmp")
    assert (status, err.count("\n")) == (2, 1)
    assert "end the name in .png, .svg, .pdf" in err
    monkeypatch.setattr(compare_command, "find_spec", lambda name: None)
    status, _, err = alone("compare", "none.jsonl", "none.jsonl", "--plot", "picture.png")
    assert (status, err.count("\n")) == (1, 1)
    assert "pip install feedmill[plot]" in err


@pytest.mark.slow
def test_a_plot_that_cannot_be_written_is_a_one_line_error(alone: Command, files: tuple[str, str]) -> None:
    status, _, err = alone("compare", *files, "--json", "--plot", "/nowhere/at/all.png")
    assert (status, err.count("\n")) == (2, 1)
    assert "/nowhere/at/all.png cannot be written" in err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("none.jsonl", "none.jsonl"), "none.jsonl cannot be read"),
        (("old", "new"), "neither a file nor a topic"),
        (("topic:feedmill.scenario.clean", "old.jsonl"), "no Kafka answers at 127.0.0.1:1"),
    ],
)
def test_sources_that_cannot_be_compared_are_a_one_line_error(
    alone: Command, arguments: tuple[str, str], line: str
) -> None:
    status, out, err = alone("compare", *arguments)
    assert status != 0
    assert out == ""
    assert line in err
    assert err.count("\n") == 1


def test_a_topic_gives_the_figures_of_a_file_with_its_rows(
    connection: Connection, called: Command, tmp_path: Path
) -> None:
    frame = scenarios.valid_rows(120)
    write(connection, frame, family=SCENARIO)
    clean, raw = (topic(connection, family=SCENARIO), topic(connection, RAW, SCENARIO))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json_lines(frame, SCENARIO))
    status, out, _ = called("compare", f"topic:{clean}", str(path), "--json")
    assert status == 0
    compared = json.loads(out)
    assert compared["a"]["source"] == clean
    assert (compared["a"]["rows"], compared["a"]["rows_invalid"], compared["a"]["cells"]["covered"]) == (120, 0, 120)
    for key in ("rows", "axes", "cells", "duplicates", "distinct_ngrams", "quotas"):
        assert compared["a"][key] == compared["b"][key]

    # Rows of a foreign producer: one is repeated and one is malformed. One record is garbage.
    lines = [*json_lines(frame[:5], SCENARIO).splitlines(), json_lines(frame[:1], SCENARIO).strip(), b'{"context": 3}']
    json_headers = [("content-type", b"application/json")]
    send(connection, b"\n".join(lines), json_headers, RAW, family=SCENARIO)
    send(connection, b"nothing", [("content-type", ARROW_STREAM.encode())], RAW, family=SCENARIO)
    pretty = json.dumps(json.loads(lines[0]), indent=2).encode()
    send(connection, pretty, json_headers, RAW, partition=1, family=SCENARIO)
    status, out, _ = called("compare", raw, clean, "--json")
    assert status == 0
    compared = json.loads(out)["a"]
    assert (compared["rows"], compared["rows_invalid"], compared["duplicates"]) == (9, 2, 2)
    assert compared["invalid_by_reason"] == {"wrong_type": 1, "garbage": 1}

    status, out, err = called("compare", "topic:feedmill.scenario.nosuch", clean)
    assert (status, out) == (2, "")
    assert clean in err
    assert err.count("\n") == 1


def test_the_family_option_must_fit_the_columns(alone: Command, tmp_path: Path) -> None:
    path = tmp_path / "terms.jsonl"
    path.write_bytes(json_lines(reductions.valid(40), REDUCTION))
    status, out, _ = alone("compare", str(path), str(path), "--family", "reduction", "--json")
    assert (status, json.loads(out)["a"]["rows"]) == (0, 40)
    status, _, err = alone("compare", str(path), str(path), "--family", "scenario")
    assert status == 2
    assert "its columns are those of reduction" in err
