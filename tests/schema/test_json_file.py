"""A JSON file of any size and depth is read or refused within limited memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schema.json_file import read_json_file


def test_a_file_at_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    text = json.dumps({"a": "ü"}, ensure_ascii=False).encode()
    path.write_bytes(text)
    assert read_json_file(path, len(text)) == {"a": "ü"}
    with pytest.raises(ValueError, match=f"over {len(text) - 1} bytes"):
        read_json_file(path, len(text) - 1)


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="over 16,777,216 bytes"):
        read_json_file(Path("/dev/zero"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "not json", '"\\ud800'])
def test_text_that_is_too_deep_or_invalid_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting|Unterminated|Invalid"):
        read_json_file(path)


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'"\xff"')
    with pytest.raises(ValueError, match="utf-8"):
        read_json_file(path)
