"""The files of a checkpoint; none of them is a pickle.

::

    (the model's files)      written by the task: sizes and weights
    optimizer.safetensors    the optimizer's tensors, named `<moment>.<weight's name>`
    trainer.json             step, counters, settings, states of the feeds and of the random generators
    manifest.json            the rows seen, for `feedmill replay --manifest`
    manifest-1.json, ...     the rows seen in earlier stages, if the run began with easier rows
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from consumers.training.saved_run import Ancestor, SavedRun
from schema.errors import CheckpointError
from schema.json_file import read_json_file

OPTIMIZER, TRAINER, MANIFEST = "optimizer.safetensors", "trainer.json", "manifest.json"
STAGE_MANIFEST = "manifest-{}.json"
# At the top of a finished run: its settings and figures.
REPORT = "training.json"

_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_ANCESTORS: TypeAdapter[list[Ancestor]] = TypeAdapter(list[Ancestor])


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return a JSON object of a checkpoint: config.json, trainer.json or manifest.json.

    Raises:
        CheckpointError: the file is absent, too long, or not a JSON object.
    """
    try:
        return _OBJECT.validate_python(read_json_file(folder / name))
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from error


def read_trainer(folder: Path) -> dict[str, Any]:
    """Return trainer.json of a checkpoint: everything that a run needs to resume.

    Raises:
        CheckpointError: the file is absent, or a part of it is absent or of the wrong type.
    """
    values = read_json(folder, TRAINER)
    try:
        saved = SavedRun.model_validate(values)
    except ValueError as error:
        raise unreadable(folder, error) from error
    ancestors = [ancestor.model_dump() for ancestor in saved.ancestors]
    parsed = {"counters": asdict(saved.counters), "budget": asdict(saved.budget)}
    return {**values, **parsed, "more_random": saved.more_random, "ancestors": ancestors}


def read_feed_states(folder: Path) -> list[dict[str, Any]] | None:
    """Return the feed states of everything that a checkpoint's model was trained on; None if one is not recorded.

    They are those of its ancestors (`--init-from`), and that of its own run at the end.

    Raises:
        CheckpointError: trainer.json is absent or invalid.
    """
    values = read_json(folder, TRAINER)
    try:
        ancestors = _ANCESTORS.validate_python(values.get("ancestors", []))
    except ValidationError as error:
        raise unreadable(folder, error) from error
    states = [*(ancestor.feed for ancestor in ancestors), values.get("feed")]
    recorded = [state for state in states if isinstance(state, dict)]
    return recorded if len(recorded) == len(states) else None


def write_json(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Write a JSON object for `read_json`; numbers are exact to the last bit."""
    (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def unreadable(folder: Path, error: Exception) -> CheckpointError:
    """Return the error of a checkpoint that cannot be read, with the first line of its cause."""
    line = str(error).partition("\n")[0]
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        line = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return CheckpointError(
        f"the checkpoint {folder} cannot be read ({line}): use an earlier checkpoint, or start a new run"
    )
