"""A command whose libraries are missing names them and the extra that has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedmill import extras
from feedmill.cli import run
from feedmill.train_commands import require_torch
from schema.errors import ConfigError


def test_a_missing_library_is_named_with_its_extra() -> None:
    extras.require("counting", "train", "json", "math")
    with pytest.raises(ConfigError, match=r"^counting needs no_such_library: .* `pip install feedmill\[train\]`$"):
        extras.require("counting", "train", "json", "no_such_library")


def test_commands_for_code_and_training_ask_for_their_extras(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"training needs torch, .*feedmill\[train\]"):
        require_torch()
    out = str(tmp_path / "out.jsonl")
    for command in (
        ["produce", "code", str(tmp_path), "--out", out],
        ["tokenizer", "train", str(tmp_path), "--out", out],
        ["replay", "code", "--windows", "--tokenizer", "t.json", "--out", out],
    ):
        assert run(command) == 1
        assert "dulwich, detect_secrets, tokenizers: install the extra" in capsys.readouterr().err
