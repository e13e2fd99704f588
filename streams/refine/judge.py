"""Sort rows into clean, rejected and rerouted. Pure over frames, except for the partition's state.

The contract fixes the order: route, validate, refuse retracted rows, then rows that a filter of the settings refuses,
then duplicates, then near duplicates, then rows that a share gate refuses. So a duplicate uses up no quota.
Augmentation of the clean rows comes last (`augmenting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from schema.family import Family, identify, partition_of
from schema.retractions import NO_IDS, RETRACTED, Ids, is_retracted
from streams.refine.sources import sourced
from streams.refine.state import State

NO_FILTERS: Mapping[str, pl.Expr] = MappingProxyType({})


@dataclass(frozen=True)
class Verdicts:
    """The rows of one group by verdict; each row is in exactly one frame, in order of arrival.

    All three frames have the wire columns and `record`. `clean` also has the family's derived columns, for accounting;
    `rejected` also has `reasons` (List(String), rule names); `rerouted` also has `partition` (Int32). The last two have
    `source_file` and `source_line` if the judged frame has them.
    """

    clean: pl.DataFrame
    rejected: pl.DataFrame
    rerouted: pl.DataFrame


def judge(
    frame: pl.DataFrame,
    family: Family,
    partition: int,
    partitions: int,
    state: State,
    retracted: Ids = NO_IDS,
    filters: Mapping[str, pl.Expr] = NO_FILTERS,
) -> Verdicts:
    """Return the verdicts on `frame` (wire columns and `record`), as the owner of raw partition `partition`.

    `state` remembers the rows that go to clean. Rows whose ids or origins are in `retracted` are rejected.
    `filters` are the family's filters under the worker's settings: `Family.filters`.
    """
    wire = [*family.wire, "record"]
    origins = None
    if names := sourced(frame):
        # The rules do not know the source columns, so rows carry a number and get these columns back at the end.
        origins = frame.select("record", *names)
        frame = frame.drop(names).with_columns(record=pl.int_range(frame.height, dtype=pl.UInt32, eager=True))
    frame = identify(frame, family).with_columns(partition_of(family, partitions))
    elsewhere = (frame["partition"] != partition).fill_null(False)
    rerouted = frame.filter(elsewhere).select([*wire, "partition"])
    if rerouted.height:
        frame = frame.filter(~elsewhere)

    # Both halves keep the order of arrival.
    sound, failures = family.rules.filter(family.derive(frame.select(wire)))
    broken = _with_reasons(failures.details(), frame.columns, family.decisive).select([*wire, "reasons"])

    is_withdrawn = is_retracted(sound, retracted)
    withdrawn = sound.filter(is_withdrawn).select(wire).with_columns(reasons=pl.lit([RETRACTED]))
    valid = sound.filter(~is_withdrawn) if withdrawn.height else sound

    parts = [broken, withdrawn]
    if filters:
        failed = valid.select(_failed(filters)).to_series()
        is_passing = failed.list.len() == 0
        parts.append(valid.select(wire).with_columns(reasons=failed).filter(~is_passing))
        valid = valid.filter(is_passing)

    verdicts = pl.Series(state.admit(valid))
    is_refused = verdicts > 0
    reasons = _reasons_of(verdicts.filter(is_refused), state)
    refused = valid.filter(is_refused).select(wire).with_columns(reasons=reasons)
    parts.append(refused)
    rejected = pl.concat(parts)
    if rejected.height > max(part.height for part in parts):
        rejected = rejected.sort("record", maintain_order=True)
    clean = valid.filter(~is_refused)
    if origins is None:
        return Verdicts(clean=clean, rejected=rejected, rerouted=rerouted)
    return Verdicts(
        clean=clean.with_columns(origins["record"].gather(clean["record"])),
        rejected=_numbered(rejected, origins),
        rerouted=_numbered(rerouted, origins),
    )


def _numbered(frame: pl.DataFrame, origins: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the record and source columns of `origins`; its `record` is a row number in `origins`."""
    return frame.with_columns(origins[frame["record"]])


def _reasons_of(verdicts: pl.Series, state: State) -> pl.Series:
    """Return the reason of each refused row, as a list of one."""
    codes = list(range(1, 1 + len(state.reasons)))
    return verdicts.replace_strict(codes, list(state.reasons), return_dtype=pl.String).reshape((-1, 1)).arr.to_list()


def _with_reasons(details: pl.DataFrame, columns: list[str], decisive: Sequence[str]) -> pl.DataFrame:
    """Return failed rows with `reasons`: the names of the rules that the row breaks.

    If a row breaks a `decisive` rule, `reasons` names only its decisive rules.
    """
    verdicts = [name for name, dtype in details.schema.items() if isinstance(dtype, pl.Enum) and name not in columns]
    every = _broken(verdicts)
    if decisive:
        deciding = _broken([name for name in verdicts if name in decisive])
        every = pl.when(deciding.list.len() > 0).then(deciding).otherwise(every)
    return details.with_columns(reasons=every)


def _failed(filters: Mapping[str, pl.Expr]) -> pl.Expr:
    """Return the reasons of all filters that a row does not pass; a filter without an answer is not passed."""
    failures = [pl.when(~passes.fill_null(False)).then(pl.lit(reason)) for reason, passes in filters.items()]
    return pl.concat_list(failures).list.drop_nulls()


def _broken(verdicts: Sequence[str]) -> pl.Expr:
    return pl.concat_list(
        [pl.when(pl.col(name) == "invalid").then(pl.lit(name)) for name in verdicts]
    ).list.drop_nulls()
