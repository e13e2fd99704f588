"""The files of an iteration are whole or absent, and belong to one request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.expert_iteration.round_files import RoundFiles
from schema.errors import UsageError


def test_a_step_is_done_once(tmp_path: Path) -> None:
    files = RoundFiles(tmp_path)
    assert files.rows_once("round-1/a.jsonl", lambda: [{"a": 1}, {"a": "é\n"}]) == [{"a": 1}, {"a": "é\n"}]
    assert files.rows_once("round-1/a.jsonl", list) == [{"a": 1}, {"a": "é\n"}]
    assert files.once("b.json", lambda: {"b": 1}) == files.once("b.json", dict) == {"b": 1}


def test_a_step_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise KeyboardInterrupt

    files = RoundFiles(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        files.rows_once("a.jsonl", failing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"{", b"[]\n", b"\xff", b'{"a": 1}\n1\n'])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.jsonl cannot be read .* remove it"):
        RoundFiles(tmp_path).rows_once("a.jsonl", list)


def test_another_request_and_another_process_are_refused(tmp_path: Path) -> None:
    files = RoundFiles(tmp_path / "out")
    with (
        files.owned({"seed": 1, "rate": 0.5}),
        pytest.raises(UsageError, match="another iteration runs"),
        RoundFiles(tmp_path / "out").owned({"seed": 1, "rate": 0.5}),
    ):
        pass
    with pytest.raises(UsageError, match=r"with another seed \(1\)"), files.owned({"seed": 2, "rate": 0.5}):
        pass
    with files.owned({"seed": 1, "rate": 0.5}):
        pass
