"""The data that decides a feed's global sequence of batches: sources with fixed offsets, filters, order and sizes.

A spec and a `Cursor` make a feed's state. With the passes made before, they make a run's manifest. Both are plain JSON.
Neither holds the number of ranks or workers, because the sequence does not depend on it. `least_rows` limits how many
ranks can share the sequence.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, TypeAdapter, ValidationError

from broker.retractions import RetractionBound
from broker.topics import Extent
from consumers.form_options import FormIdentity
from consumers.sequence.cursor import Cursor
from consumers.sequence.predicates import Predicate
from schema.errors import FeedError, UsageError
from schema.family import SPLITS
from schema.registry import family_named

# Version of the form of states and manifests; another build may have another one.
STATE_VERSION = 2
# Shuffle seeds are below this.
SEEDS = 2**64
# The longest packed row; planning takes up to 12 bytes of memory for each of its tokens.
MOST_PACK_TOKENS = 1 << 20

# {partition: ((first offset, offsets to a block), ...)}, ascending; a size holds until the next one begins.
BlockSizes = dict[int, tuple[tuple[int, Annotated[int, Field(ge=1)]], ...]]


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """An epoch in phases, from simple to complex: first the rows whose `column` is low, then higher ones.

    Attributes:
        column: a numeric column of the family, such as `size`.
        edges: increasing. Phase i takes the rows with edges[i - 1] <= column < edges[i]. The first phase takes all rows
            below the first edge, and the last phase all rows from the last edge on.
        cumulative: a phase also takes the rows of all earlier phases.
    """

    column: str
    edges: tuple[float, ...]
    cumulative: bool = False

    def __post_init__(self) -> None:
        if not self.edges or list(self.edges) != sorted(set(self.edges)):
            raise UsageError(f"a curriculum needs at least one edge, and edges that increase, not {list(self.edges)}")


@dataclass(frozen=True, kw_only=True)
class PinnedSource:
    """A clean topic and the offsets of it that a feed reads.

    Attributes:
        topic: its full name.
        topic_id: Kafka's id of the topic; a topic that was created again has another id.
        bounds: [begin, end) per partition.
        weight: its part in the mix, relative to the other sources.
        repeat: start again when exhausted, until another source ends the pass.
        blocks: block sizes in offsets, measured when the offsets were fixed.
        retractions: the retractions whose rows are left out before batches are planned; None if there were none.
        withdrawn: later retractions, whose rows are dropped from planned batches (`consumers.sequence.retracted`).
    """

    topic: str
    topic_id: str
    bounds: dict[int, Extent]
    weight: float = 1.0
    repeat: bool = False
    blocks: BlockSizes = dataclasses.field(default_factory=dict)
    retractions: RetractionBound | None = None
    withdrawn: RetractionBound | None = None


@dataclass(frozen=True, kw_only=True)
class FeedSpec:
    """Everything that decides the global sequence; see `Feed` and `FeedOptions` for the meaning of the values.

    Attributes:
        schema_version: version of the family's columns.
        where: the filter.
        least_rows: the least rows of a batch; a state without the value means 1.
        form: what decides the sequences of a row; None if each row is one sequence.
        weight_column: the column with the rows' weights; None takes each sequence once.
        pack_tokens: the length of a row that holds several sequences; a state without the value means None: each
            sequence has a row of its own.
    """

    family: str
    schema_version: int
    sources: tuple[PinnedSource, ...]
    mode: Literal["snapshot", "follow"]
    split: str | None
    batch_size: int | None
    batch_tokens: int | None
    max_tokens: int
    shuffle_seed: int | None
    block_rows: int
    window_rows: int
    window_bytes: int
    bucket: bool
    where: Predicate | None
    curriculum: Curriculum | None
    least_rows: int = 1
    form: FormIdentity | None = None
    weight_column: str | None = None
    pack_tokens: int | None = None

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics' names, in the order of the sources."""
        return tuple(source.topic for source in self.sources)

    @property
    def phases(self) -> int:
        """Number of phases in a pass."""
        return 1 if self.curriculum is None else len(self.curriculum.edges) + 1

    def of_pass(self, cursor: Cursor) -> FeedSpec:
        """Return the spec with the offsets and retractions of the cursor's pass, which differ in `follow` mode."""
        if cursor.bounds is None:
            return self
        known = cursor.retractions or tuple(source.retractions for source in self.sources)
        sources = tuple(
            dataclasses.replace(source, bounds=bounds, retractions=bound)
            for source, bounds, bound in zip(self.sources, cursor.bounds, known, strict=True)
        )
        return dataclasses.replace(self, sources=sources)


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Passes that a run made: epochs `first` to `last` as a whole, or only the first `batches` batches of one."""

    first: int
    last: int
    batches: int | None = None


@dataclass(frozen=True, kw_only=True)
class FeedState:
    """A feed's state; together with the passes before, also a run's manifest.

    Attributes:
        version: `STATE_VERSION`.
        spec: the data that decides the sequence.
        cursor: the feed's place in the sequence.
        passes: finished or broken-off passes before the one at `cursor`, in order.
        share: in `follow` mode (index, count): the rows with `example_id mod count == index` were taken.
        worker: (number, workers) for the state of a loader's worker, whose `cursor` is that of its own last batch.
    """

    version: int = STATE_VERSION
    spec: FeedSpec
    cursor: Cursor
    passes: tuple[Passes, ...] = ()
    share: tuple[int, int] = (0, 1)
    worker: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        values: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return values


_ADAPTER: TypeAdapter[FeedState] = TypeAdapter(FeedState)
_CURSOR: TypeAdapter[Cursor] = TypeAdapter(Cursor)


def cursor_to_json(cursor: Cursor) -> dict[str, Any]:
    """Return a cursor as JSON values."""
    values: dict[str, Any] = _CURSOR.dump_python(cursor, mode="json")
    return values


def cursor_from_json(values: Mapping[str, Any]) -> Cursor:
    """Return the cursor from the values of `cursor_to_json`."""
    return _CURSOR.validate_json(json.dumps(dict(values)))


def read_state(state: Mapping[str, Any]) -> FeedState:
    """Return the state from the values of `FeedState.to_json`.

    Raises:
        FeedError: the values are not a state, have another version, or include a value that no feed writes.
    """
    version = state.get("version")
    if isinstance(version, int) and version != STATE_VERSION:
        raise FeedError(
            f"the feed's state has version {version}, but this build reads version {STATE_VERSION}: "
            "resume with the build that wrote it"
        )
    try:
        text = json.dumps(dict(state))
        parsed = _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise FeedError(
            f"this is not a feed state ({place or 'all of it'}: {reason}): give the whole value of `state_dict()`"
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise FeedError(f"this is not a feed state ({error}): give the whole value of `state_dict()`") from None
    fault = next(faults(parsed), None)
    if fault is not None:
        raise FeedError(f"this is not a feed state ({fault}): give the whole value of `state_dict()`")
    return parsed


def faults(state: FeedState) -> Iterator[str]:
    """Yield the reasons why no feed can have written this state; a state may come from any file."""
    spec, cursor = state.spec, state.cursor
    values = state.to_json()
    # A seed may have 64 bits; every other number goes into signed columns.
    values["spec"].pop("shuffle_seed")
    numbers = _numbers(values)
    if outside := next((number for number in numbers if not -(2**63) <= number < 2**63), None):
        yield f"the number {outside:.3g} is beyond 64 bits"
    if spec.shuffle_seed is not None and not 0 <= spec.shuffle_seed < SEEDS:
        yield f"the shuffle seed {spec.shuffle_seed:.3g} is not a number of 64 bits"
    if spec.split not in (None, *SPLITS):
        yield f"the split {spec.split!r} is unknown"
    sizes = (spec.max_tokens, spec.block_rows, spec.window_rows, spec.window_bytes, spec.least_rows)
    if min(*sizes, spec.batch_size or 1, spec.batch_tokens or 1) < 1 or spec.batch_size == 0 or spec.batch_tokens == 0:
        yield "a size is below 1"
    for fault in (packing_fault(spec), least_rows_fault(spec)):
        if fault is not None:
            yield fault
    if not 1 <= len(spec.sources) <= 255 or len(cursor.places) not in (0, len(spec.sources)):
        yield "it has a wrong number of sources or places"
    if not all(0 < source.weight < float("inf") for source in spec.sources):
        yield "a source's weight is not above 0"
    if all(source.repeat for source in spec.sources):
        yield "every source repeats"
    bounds = [source.bounds for source in spec.sources] + list(cursor.bounds or ())
    if any(part < 0 or not 0 <= extent.begin <= extent.end for each in bounds for part, extent in each.items()):
        yield "an offset or a partition is below 0, or an end before its begin"
    if len(cursor.retractions or spec.sources) != len(spec.sources):
        yield "it has a wrong number of bounds of retractions"
    known = [bound for source in spec.sources for bound in (source.retractions, source.withdrawn)]
    if any(bound is not None and bound.end < 0 for bound in (*known, *(cursor.retractions or ()))):
        yield "a bound of retractions is below 0"
    measured = [sizes for source in spec.sources for sizes in source.blocks.values()]
    if any(not sizes or list(sizes) != sorted(dict(sizes).items()) or sizes[0][0] < 0 for sizes in measured):
        yield "the blocks' sizes are not in the order of offsets"
    if spec.curriculum is not None and not _is_numeric(spec, spec.curriculum.column):
        yield f"the curriculum's column {spec.curriculum.column!r} is not a numeric one"
    if not _is_numeric(spec, spec.weight_column):
        yield f"the weight column {spec.weight_column!r} is not a numeric one"
    if spec.form is not None and (fault := _form_fault(spec.form)) is not None:
        yield fault
    counts = (cursor.epoch, cursor.batches, cursor.window, cursor.batch, cursor.dropped)
    if not 0 <= cursor.phase < spec.phases or min(counts) < 0:
        yield "the cursor is outside the passes"
    if any(min(place.round, place.block, place.row, place.too_long) < 0 for place in cursor.places):
        yield "a place is below 0"
    if any(not 0 <= done.first <= done.last or done.batches == 0 for done in state.passes):
        yield "a pass is below 0, or empty"


def _is_numeric(spec: FeedSpec, column: str | None) -> bool:
    kind = pl.Float64() if column is None else family_named(spec.family).wire.get(column)
    return kind is not None and kind.is_numeric()


def _form_fault(form: FormIdentity) -> str | None:
    try:
        form.options()
    except UsageError as error:
        return f"its form is damaged: {error}"
    return None


def packing_fault(spec: FeedSpec) -> str | None:
    """Return the reason why the spec's sequences cannot be packed into rows of `pack_tokens`; None if they can."""
    row_tokens = spec.pack_tokens
    if row_tokens is None:
        return None
    if not 1 <= row_tokens <= MOST_PACK_TOKENS:
        return f"pack_tokens {row_tokens} is outside 1 to {MOST_PACK_TOKENS:,}: use the length of the model's context"
    if row_tokens < spec.max_tokens:
        return (
            f"pack_tokens {row_tokens} is less than max_tokens {spec.max_tokens}, so a sequence may fit no row: "
            "raise one or lower the other"
        )
    if spec.bucket:
        return f"bucket sorts rows of one sequence, but pack_tokens is {row_tokens}: leave one of the two out"
    if spec.batch_tokens is not None and spec.batch_tokens < spec.least_rows * row_tokens:
        return (
            f"batch_tokens {spec.batch_tokens} is less than least_rows {spec.least_rows} rows of pack_tokens "
            f"{row_tokens}: raise batch_tokens to {spec.least_rows * row_tokens} or more"
        )
    return None


def least_rows_fault(spec: FeedSpec) -> str | None:
    """Return the reason why batches of the spec cannot hold `least_rows` rows; None if they can."""
    least = spec.least_rows
    if spec.batch_size is not None and spec.batch_size < least:
        return f"batch_size {spec.batch_size} is less than least_rows {least}: raise batch_size to {least} or more"
    if least > 1 and spec.batch_tokens is not None and spec.batch_tokens < least * spec.max_tokens:
        return (
            f"batch_tokens {spec.batch_tokens} cannot hold {least} rows of max_tokens {spec.max_tokens}: raise "
            f"batch_tokens to {least * spec.max_tokens}, or lower max_tokens to {spec.batch_tokens // least}"
        )
    return None


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, int):
        yield value


_COMPARED = [each.name for each in dataclasses.fields(FormIdentity) if each.compare]


def difference(saved: FormIdentity, own: FormIdentity | None) -> tuple[str, Any, Any] | None:
    """Return (name, saved value, own value) of the first value that differs; None if the identities agree."""
    for name in _COMPARED:
        before, now = getattr(saved, name), getattr(own, name, None)
        if before != now:
            return name, before, now
    return None


def require_same(saved: FeedSpec, own: FeedSpec) -> None:
    """Check that a state fits a feed: all values except the offsets must agree.

    Raises:
        FeedError: the state does not fit; the line gives the name that differs and both values.
    """
    # The form decides the default of other values, so its difference explains theirs.
    for name in sorted((field.name for field in dataclasses.fields(FeedSpec)), key=lambda name: name != "form"):
        before, now = getattr(saved, name), getattr(own, name)
        if name == "sources":
            before, now = ([(s.topic, s.weight, s.repeat) for s in spec.sources] for spec in (saved, own))
        if isinstance(before, FormIdentity) and (found := difference(before, now)) is not None:
            name, before, now = f"form's {found[0]}", *found[1:]
        if before != now:
            raise FeedError(
                f"the state was saved with {name.replace('_', ' ')} {_shown(before)}, but this feed has {_shown(now)}: "
                "give the feed the saved value, or start without the state"
            )


def _shown(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Predicate):
        return value.text
    return {name: getattr(value, name) for name in _COMPARED} if isinstance(value, FormIdentity) else str(value)
