"""A training run of a language model as a YAML file: its model, its data and its optimizer.

The files of `configs/` ship with the project and are found by name. Every key is checked, and an unknown one is refused
with the known key that is nearest, or that has this name in another part. A file has at most 64 KiB and no anchors.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from consumers.language_model.quantization import Quantize
from consumers.language_model.saved_model import Lora
from schema.errors import UsageError

CONFIGS = Path(__file__).parent / "configs"
_MOST_BYTES = 64 * 1024
_FLOAT = re.compile(r"[0-9]+(?:[.][0-9]*)?[eE][-+]?[0-9]+")

Count = Annotated[int, Field(ge=1, le=1 << 40)]


class _Part(BaseModel):
    """A part of a run file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelPart(_Part):
    """The model.

    Attributes:
        base: `tiny`, or the folder or name of a base model.
        tokenizer: file or folder; None takes that of `base` or of `load_from`.
        load_from: the folder of an earlier run, whose weights begin this one.
        hidden_size, layers, heads: of the tiny model.
        lora: trains an adapter; None trains all weights.
    """

    base: str = "tiny"
    tokenizer: str | None = None
    load_from: str | None = None
    hidden_size: Annotated[int, Field(ge=1, le=65_536)] = 256
    layers: Annotated[int, Field(ge=1, le=1024)] = 4
    heads: Annotated[int, Field(ge=1, le=1024)] = 4
    lora: Lora | None = None

    @property
    def quantize(self) -> Quantize | None:
        """How the base of an adapter is quantised."""
        return None if self.lora is None else self.lora.quantize


class DatasetPart(_Part):
    """Which documents the feed takes, and how.

    Attributes:
        min_length, max_length: characters of a document.
        exclude_tests, exclude_examples, exclude_benches: leave out documents by role or path.
        prefer_idiomatic, prefer_documented: as the settings `code_prefer_...`.
        languages: only these; None takes all.
        where: a further SQL condition.
        others_share: beside an expert's rows, this share of the other documents, chosen by `example_id` and
            `shuffle_seed`; None takes all.
        weights: take each document as often as its column `weight` says.
        shuffle_seed: of the feed.
        use_cache: keep tokenized documents in the run's data folder; false tokenizes in every pass.
    """

    min_length: Annotated[int, Field(ge=0, le=1 << 40)] = 64
    max_length: Count = 200_000
    exclude_tests: bool = False
    exclude_examples: bool = False
    exclude_benches: bool = False
    prefer_idiomatic: bool = False
    prefer_documented: bool = False
    languages: list[str] | None = None
    where: str | None = None
    others_share: Annotated[float, Field(ge=0, le=1)] | None = None
    weights: bool = False
    shuffle_seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    use_cache: bool = True


class TrainPart(_Part):
    """The optimizer's steps.

    Attributes:
        sequence_length: tokens of a packed row, and the most of a sequence.
        batch_size: packed rows of a batch.
        accumulation: batches of a step.
        learning_rate: the highest rate.
        warmup_steps: steps in which it rises.
        weight_decay: of AdamW.
        steps: length of the run; exactly one of `steps` and `epochs` is given.
        epochs: passes over the documents.
        curriculum: take simple documents first in every pass (column `phase`).
        seed: of weights, dropout and held-out rows.
        checkpoint_every, eval_every: steps.
        held_out_rows: sequences that judge the run.
        bf16: use bfloat16 for matrix products; None if it is faster on this machine.
        gradient_checkpointing: less memory and more time.
    """

    sequence_length: Annotated[int, Field(ge=2, le=1 << 20)] = 2048
    batch_size: Count = 8
    accumulation: Count = 1
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0, le=1 << 40)] = 50
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    steps: Count | None = None
    epochs: Count | None = None
    curriculum: bool = False
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    checkpoint_every: Count = 200
    eval_every: Count = 200
    held_out_rows: Count = 64
    bf16: bool | None = None
    gradient_checkpointing: bool = False


class RunFile(_Part):
    """A whole run file."""

    model: ModelPart = ModelPart()
    dataset: DatasetPart = DatasetPart()
    train: TrainPart = TrainPart()


def find_run_file(name: str) -> Path:
    """Return the path of a run file: a file, or one that ships with the project.

    Raises:
        UsageError: there is none of this name.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = CONFIGS / path.name
    if path.name == name and shipped.is_file():
        return shipped
    known = ", ".join(sorted(each.name for each in CONFIGS.glob("*.yml")))
    raise UsageError(f"there is no run file {name}: name a file, or one that ships with Feedmill ({known})")


def read_run_file(name: str) -> RunFile:
    """Return a run file.

    Raises:
        UsageError: there is no such file, or it is no valid run file; the line names the key.
    """
    path = find_run_file(name)
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the run file {name} cannot be read ({error.strerror})") from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"the run file {name} has more than {_MOST_BYTES:,} bytes: it holds settings only")
    return parse_run_file(data, name)


def parse_run_file(data: bytes, name: str) -> RunFile:
    """Return the run file of these bytes; see `read_run_file`.

    >>> parse_run_file(b"train: {steps: 10, learning_rate: 0.001}", "x.yml").train.steps
    10
    """
    try:
        text = data.decode("utf-8-sig")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UsageError(f"the run file {name} has an alias (*): write the value out")
        if twice := _key_given_twice(yaml.compose(text, yaml.SafeLoader)):
            raise UsageError(f"the run file {name} is not YAML (the key {twice} is given twice): remove one of them")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as error:
        # The library does not check values such as 2020-13-45, `!!bool maybe` or `!!timestamp never`.
        line = " ".join(str(error).split())[:200]
        raise UsageError(
            f"the run file {name} is not YAML ({line}): see the files of `consumers/language_model/configs`"
        ) from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UsageError(f"the run file {name} is no table: it has the keys {', '.join(RunFile.model_fields)}")
    try:
        run = RunFile.model_validate(_with_floats(values))
    except ValidationError as error:
        raise UsageError(f"the run file {name}: {_line(error)}") from None
    if (run.train.steps is None) == (run.train.epochs is None):
        raise UsageError(f"the run file {name}: train needs either steps or epochs, and not both")
    return run


def _key_given_twice(node: Any) -> str | None:
    """Return a key that a mapping below a node of YAML has twice, whose first value YAML would drop; None without."""
    waiting = [] if node is None else [node]
    while waiting:
        one = waiting.pop()
        if one.id == "mapping":
            keys = Counter(key.value for key, _ in one.value if key.id == "scalar")
            if twice := [key for key, count in keys.items() if count > 1]:
                return str(twice[0])
            waiting += [value for _, value in one.value]
        elif one.id == "sequence":
            waiting += one.value
    return None


def with_changes(run: RunFile, name: str, *, steps: int | None = None, **model: str | None) -> RunFile:
    """Return a run file with other values, as the command line gives them; None changes nothing.

    Args:
        run: the run file.
        name: of the file, for messages.
        steps: in place of the file's steps or epochs.
        model: values of the part `model`.
    """
    values = run.model_dump()
    values["model"] |= {key: value for key, value in model.items() if value is not None}
    if steps is not None:
        values["train"] |= {"steps": steps, "epochs": None}
    return parse_run_file(yaml.safe_dump(values).encode(), name)


def written(run: RunFile) -> str:
    """Return the text of a run file with all its values, which `read_run_file` reads."""
    return yaml.safe_dump(run.model_dump(), sort_keys=False, allow_unicode=True)


def _with_floats(values: Any) -> Any:
    """Return the values with `1e-4` as a number: YAML 1.1 reads it as a text, because it has no point."""
    if isinstance(values, dict):
        return {name: _with_floats(value) for name, value in values.items()}
    return float(values) if isinstance(values, str) and _FLOAT.fullmatch(values) else values


def _line(error: ValidationError) -> str:
    """Return the first fault of a run file as a line."""
    first = error.errors(include_url=False)[0]
    *parents, key = [str(part) for part in first["loc"]] or [""]
    place = ".".join([*parents, key])
    given = str(first["input"])[:100]
    if first["type"] == "literal_error":
        values = re.findall("'([^']*)'", first["ctx"]["expected"])
        return f"{place}: there is no value {given!r}: did you mean {_nearest(given, values)}?"
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']}, not {given!r}"
    known = list(_fields(parents))
    elsewhere = [path for path in _paths(RunFile) if path.rpartition(".")[2] == key]
    meant = elsewhere[0] if elsewhere else ".".join([*parents, _nearest(key, known)])
    return f"there is no key {place}: did you mean {meant}? The keys are {', '.join(known)}"


def _nearest(word: str, known: list[str]) -> str:
    return difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]


def _fields(parents: list[str]) -> Mapping[str, FieldInfo]:
    kind: type[BaseModel] = RunFile
    for parent in parents:
        kind = _part(kind.model_fields[parent]) or kind
    return kind.model_fields


def _paths(kind: type[BaseModel]) -> Iterator[str]:
    """Yield all keys of a part of a run file, such as `model.lora.r`."""
    for name, field in kind.model_fields.items():
        yield name
        if (part := _part(field)) is not None:
            yield from (f"{name}.{path}" for path in _paths(part))


def _part(field: FieldInfo) -> type[BaseModel] | None:
    """Return the part that a key holds, if it holds one."""
    choices = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
    return next((each for each in choices if issubclass(each, BaseModel)), None)
