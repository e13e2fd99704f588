"""Read and judge a model's answers: match them to the ids asked for, and accept or refuse each scenario.

Answers are matched by ids that stand for positions in the prompt. The labels follow from an answer's own numbers, and
missing parts are never filled in. An answer is accepted for the cell that its numbers show, if that cell was asked for
and has no other accepted answer, and if the answer passes the family's rules, which are those of the refine stage.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from producers.scenario.llm.faults import (
    CUT_OFF,
    DUPLICATED,
    EMPTY,
    MALFORMED,
    MISSING,
    REFUSED,
    THINKING_CUT_OFF,
    THINKING_ONLY,
    WRONG_CELL,
)
from producers.scenario.llm.replies import CUT_OFF_REASON, Reply
from schema.family import identify
from schema.scenario import FAMILY
from schema.scenario.bands import SUPPORT_HEADROOM, level_of, target_of

Cell = Mapping[str, str]
# {column: value} of a row; columns that the answer does not give are absent.
Row = dict[str, Any]

# Far longer than any scene asked for; limits a model that repeats itself.
_TEXT_CHARACTERS = 4000
_MOST_PARTS = 16
_DECODER = json.JSONDecoder()
# The beginning of an object at the beginning of a line, alone or in a list.
_BARE = re.compile(r"^[ \t]*(?P<bracket>\[\s*)?(?=\{)", re.MULTILINE)

_Text = Annotated[str, Field(max_length=_TEXT_CHARACTERS)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    """A part of an answer: text is never converted to a number or back; extra properties are ignored."""

    model_config = ConfigDict(strict=True)


class _Factor(_Strict):
    name: _Text
    effect: _Number


class ScenarioAnswer(_Strict):
    """One well-formed scenario of an answer, not yet checked against the rules."""

    id: str
    name: _Text
    age_band: _Text
    relation: _Text
    setting: _Text
    context: _Text
    capacity_factors: Annotated[list[_Factor], Field(max_length=_MOST_PARTS)]
    base_capacity: _Number
    calculation_steps: Annotated[list[_Text], Field(max_length=_MOST_PARTS)]
    anchor: _Text
    support_needed: _Number
    complexity_type: _Text
    request: _Text
    response: _Text
    authenticity_score: _Number

    def row(self) -> Row:
        """Return the columns that the answer gives, plus the two capacities that follow from them."""
        # Rounded to remove the binary error of adding decimals.
        effective = round(math.fsum([self.base_capacity, *(factor.effect for factor in self.capacity_factors)]), 6)
        return {
            "character_name": self.name,
            "character_age_band": self.age_band,
            "character_relation": self.relation,
            "setting": self.setting,
            "context": self.context,
            "capacity_factors": [factor.model_dump() for factor in self.capacity_factors],
            "base_capacity": self.base_capacity,
            "effective_capacity": effective,
            "support_needed": self.support_needed,
            "support_possible": round(effective + SUPPORT_HEADROOM, 6),
            "request": self.request,
            "response": self.response,
            "authenticity_score": self.authenticity_score,
            "complexity_type": self.complexity_type,
            "calculation_steps": self.calculation_steps,
            "qualitative_anchor": self.anchor,
        }


@dataclass(frozen=True)
class Read:
    """The well-formed answers of a call by id, and the faults of the other ids."""

    scenarios: dict[str, ScenarioAnswer] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def positions(count: int) -> list[str]:
    """Return the ids of the scenarios of a call in its prompt and its answer: s1, s2, ... by position."""
    return [f"s{number}" for number in range(1, count + 1)]


def read(reply: Reply, asked: Sequence[str]) -> Read:
    """Return the well-formed answers in a reply for the ids that were asked for; other ids are ignored.

    The reply has the ids of `positions` in place of those in `asked`. Complete items count even if the text is cut off
    or has prose around it. An id that occurs twice has no answer, because the right one is unknown.
    """
    items, is_json = objects_in(reply.text, "scenarios")
    named = [(item["id"], item) for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]
    times = Counter(position for position, _ in named)
    by_position = dict(named)
    absent = _fault_of_absent(reply, is_json)
    result = Read()
    for position, name in zip(positions(len(asked)), asked, strict=True):
        if times[position] > 1:
            result.faults[name] = DUPLICATED
        elif position in by_position:
            try:
                result.scenarios[name] = _whole(by_position[position])
            except ValueError:  # of pydantic, or of a lone surrogate
                result.faults[name] = MALFORMED
        else:
            result.faults[name] = absent
    return result


def _fault_of_absent(reply: Reply, is_json: bool) -> str:
    """Return the fault of the ids that a reply does not contain; `is_json`: it contains a complete list."""
    is_cut_off, is_empty = reply.finish_reason == CUT_OFF_REASON, not reply.text.strip()
    if reply.refused:
        return REFUSED
    if is_empty and reply.thought:
        return THINKING_CUT_OFF if is_cut_off else THINKING_ONLY
    if is_cut_off:
        return CUT_OFF
    if is_empty:
        return EMPTY
    return MISSING if is_json else MALFORMED


def _whole(item: dict[str, Any]) -> ScenarioAnswer:
    # JSON can escape a lone surrogate, which UTF-8 cannot encode.
    json.dumps(item, ensure_ascii=False).encode()
    return ScenarioAnswer.model_validate(item)


def objects_in(text: str, name: str) -> tuple[list[Any], bool]:
    """Return the items of the list under the key `name` in `text`, and whether the list is complete.

    Of several lists, the last complete one with items counts, because the earlier ones are drafts. Without one, the
    longest list counts. Of a truncated list, the items before the break are returned. If the text has no such key, a
    list or objects that begin a line count, because some models leave the outer object out.
    """
    lists: list[tuple[list[Any], bool]] = []
    end = 0
    for match in re.finditer(rf'"{name}"\s*:\s*\[', text):
        # A list within an item of another list is no answer of its own.
        if match.start() >= end:
            items, is_complete, after = _items(text, match.end())
            lists.append((items, is_complete))
            end = after if is_complete else end
    if not lists:
        return _bare_objects(text)
    complete = [found for found in lists if found[1] and found[0]]
    return complete[-1] if complete else max(lists, key=lambda found: len(found[0]), default=([], False))


def _bare_objects(text: str) -> tuple[list[Any], bool]:
    """Return the objects with an id that begin a line of `text`, alone or in a list, and whether there are any."""
    found: list[Any] = []
    end = 0
    for match in _BARE.finditer(text):
        if match.start() < end:
            continue
        if match["bracket"]:
            items, _, end = _items(text, match.end())
        else:
            try:
                item, end = _DECODER.raw_decode(text, match.end())
            except (ValueError, RecursionError):
                continue
            items = [item]
        found += [item for item in items if isinstance(item, dict) and "id" in item]
    return found, bool(found)


def _items(text: str, at: int) -> tuple[list[Any], bool, int]:
    """Return the items of the JSON list whose bracket is just before `at`, whether it is complete, and its end."""
    items: list[Any] = []
    at = _skip(text, at)
    while text[at : at + 1] not in ("]", ""):
        try:
            item, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return items, False, at
        items.append(item)
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
    return items, at < len(text), at


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def scores_in(text: str, asked: Sequence[str]) -> dict[str, float]:
    """Return the validation scores in `text`, 0 to 1, by the ids asked for; repeated and invalid scores are omitted.

    The text has the ids of `positions` in place of those in `asked`.
    """
    items, _ = objects_in(text, "scores")
    scores = [(item.get("id"), item.get("score")) for item in items if isinstance(item, dict)]
    times = Counter(position for position, _ in scores if isinstance(position, str))
    wanted = dict(zip(positions(len(asked)), asked, strict=True))
    return {
        wanted[position]: float(score)
        for position, score in scores
        if isinstance(position, str)
        and position in wanted
        and times[position] == 1
        and isinstance(score, int | float)
        and not isinstance(score, bool)
        and 0 <= score <= 1
    }


@dataclass
class JudgedAnswer:
    """The accepted rows and the faults of a call, by id.

    Attributes:
        accepted: {id: its accepted row, with `scenario_id`}.
        faults: {other id: an answer fault, or the names of the rules that its row breaks}.
        refused: {id with a fault: its row}, if it gave a row that was not accepted for another id.
        texts: example ids of the accepted rows.
    """

    accepted: dict[str, Row] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    refused: dict[str, Row] = field(default_factory=dict)
    texts: set[int] = field(default_factory=set)

    def accept(self, place: str, row: Row, text: int) -> None:
        """Accept `row`, with example id `text`, as the answer of id `place`."""
        self.accepted[place] = {**row, "scenario_id": place}
        self.texts.add(text)
        self.faults.pop(place, None)
        self.refused.pop(place, None)

    def refuse(self, name: str, reason: str, row: Row) -> None:
        """Record why the row of id `name` is refused, unless the id has an accepted row."""
        if name in self.accepted:
            return
        self.faults[name] = reason
        self.refused[name] = {**row, "scenario_id": name}


def judge(answers: Read, asked: Mapping[str, Cell], common: Row, texts: set[int]) -> JudgedAnswer:
    """Accept or refuse the answers of a call, and return the result for every id asked for.

    Args:
        answers: the well-formed answers of the call.
        asked: {id: its cell}.
        common: columns that have one value in all rows of the call.
        texts: example ids of the run's accepted rows; a repeated one is refused.
    """
    judged = JudgedAnswer(faults=dict(answers.faults))
    if not answers.scenarios:
        return judged
    rows = {name: {**common, **scenario.row(), "scenario_id": name} for name, scenario in answers.scenarios.items()}
    frame = to_frame(rows.values())
    shown = dict(zip(rows, frame.select(FAMILY.cell_axes).rows(), strict=True))
    text = dict(zip(rows, frame["example_id"].to_list(), strict=True))
    wanted = {name: tuple(cell[axis] for axis in FAMILY.cell_axes) for name, cell in asked.items()}
    fit = []
    for name, reasons in zip(rows, broken_rules(frame), strict=True):
        if reasons:
            judged.refuse(name, ",".join(reasons), rows[name])
        else:
            fit.append(name)
    # Answers for their own id's cell come first; the others may be accepted for another id of their cell.
    for name in sorted(fit, key=lambda name: shown[name] != wanted[name]):
        free = [other for other in asked if other not in judged.accepted and wanted[other] == shown[name]]
        if text[name] in texts | judged.texts:
            judged.refuse(name, DUPLICATED, {**rows[name], "answer_fault": DUPLICATED})
        elif not free:
            judged.refuse(name, WRONG_CELL, {**rows[name], "answer_fault": WRONG_CELL})
        else:
            place = name if name in free else free[0]
            judged.accept(place, rows[name], text[name])
            if place != name and name not in judged.accepted:
                judged.faults[name] = WRONG_CELL
    return judged


def to_frame(rows: Iterable[Row]) -> pl.DataFrame:
    """Return rows as an identified wire frame; level and target follow from the numbers, and are null outside bands."""
    values = list(rows)
    frame = pl.DataFrame({name: [row.get(name) for row in values] for name in FAMILY.columns}, schema=FAMILY.columns)
    frame = frame.with_columns(
        capacity_level=level_of(pl.col("effective_capacity")),
        authenticity_target=target_of(pl.col("authenticity_score")),
    )
    return identify(frame, FAMILY).select(list(FAMILY.wire))


def broken_rules(frame: pl.DataFrame) -> list[list[str]]:
    """Return, for each row of a wire frame, the names of the family's rules that it breaks, as in the refine stage."""
    numbered = frame.with_columns(record=pl.int_range(pl.len(), dtype=pl.UInt32))
    _, failures = FAMILY.rules.filter(FAMILY.derive(numbered))
    details = failures.details()
    verdicts = [name for name, dtype in details.schema.items() if isinstance(dtype, pl.Enum) and name not in numbered]
    broken: list[list[str]] = [[] for _ in range(frame.height)]
    for number, *values in details.select("record", *verdicts).iter_rows():
        broken[number] = [name for name, value in zip(verdicts, values, strict=True) if value == "invalid"]
    return broken
