"""What a run asks next: groups of five to a role, then single ids once more, and rows that wait to be scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from producers.scenario.llm import prompts
from producers.scenario.llm.journal import Standing
from producers.scenario.llm.routing import VALIDATION, WRITING_ROLES, role_of

# What a validator is shown of a row, under these names.
_SHOWN = {
    "context": "context",
    "request": "request",
    "response": "response",
    "effective_capacity": "capacity",
    "support_needed": "support_needed",
    "authenticity_score": "authenticity",
    "complexity_type": "type",
}


@dataclass(frozen=True)
class Question:
    """One call: its number, who is asked what about which ids, and the JSON schema of the answer."""

    call: int
    role: str
    model: str
    asked: tuple[str, ...]
    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]


class Agenda:
    """The questions that a run still has, in order; an id is in one of them at a time.

    Attributes:
        singles: ids to be asked for once more, alone.
        unscored: ids whose row waits to be validated and is not being so.
    """

    def __init__(self, models: Mapping[str, str], standing: Standing) -> None:
        self._models = models
        self._standing = standing
        self._next_call = standing.next_call
        self._groups: deque[tuple[str, ...]] = deque()
        self.singles: deque[str] = deque()
        self.unscored: deque[str] = deque(standing.waiting)
        fresh: dict[str, list[str]] = {role: [] for role in WRITING_ROLES}
        for name in standing.open:
            if standing.asks[name]:
                self.singles.append(name)
                continue
            names = fresh[self._role(name)]
            names.append(name)
            # In the order of the plan, so that a run that a budget ends early is not of one role's types only.
            if len(names) == prompts.SCENARIOS_PER_CALL:
                self._groups.append(tuple(names))
                names.clear()
        self._groups.extend(tuple(names) for names in fresh.values() if names)

    @property
    def validates(self) -> bool:
        """Whether rows are scored by a model before they are sent."""
        return VALIDATION in self._models

    @property
    def has_questions(self) -> bool:
        """Whether anything is left to ask."""
        return bool(self.singles or self._groups or (self.unscored and self.validates))

    def number(self) -> int:
        """Return the number of the next record of the journal."""
        self._next_call += 1
        return self._next_call - 1

    def next(self, idle: bool) -> Question | None:
        """Return the next question, or None while there is none; rows are scored in fives, or where all is `idle`."""
        if self.validates and len(self.unscored) >= prompts.SCENARIOS_PER_CALL:
            return self._validating()
        if self.singles:
            return self._writing((self.singles.popleft(),))
        if self._groups:
            return self._writing(self._groups.popleft())
        if idle and self.validates and self.unscored:
            return self._validating()
        return None

    def _role(self, name: str) -> str:
        return role_of(self._standing.cells[name]["complexity_type"])

    def _writing(self, asked: tuple[str, ...]) -> Question:
        cells = {name: self._standing.cells[name] for name in asked}
        messages = prompts.writing(cells, self._standing.faults)
        return self._question(self._role(asked[0]), asked, messages, prompts.writing_schema(cells))

    def _validating(self) -> Question:
        count = min(len(self.unscored), prompts.SCENARIOS_PER_CALL)
        asked = tuple(self.unscored.popleft() for _ in range(count))
        scenes = [
            {"id": name, **{shown: self._standing.waiting[name][column] for column, shown in _SHOWN.items()}}
            for name in asked
        ]
        return self._question(VALIDATION, asked, prompts.validating(scenes), prompts.validation_schema(asked))

    def _question(
        self, role: str, asked: tuple[str, ...], messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any]
    ) -> Question:
        return Question(self.number(), role, self._models[role], asked, messages, schema)
