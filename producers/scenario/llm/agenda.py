"""Choose a run's next question: batches of five ids per role, single ids again, and rows that wait for a score."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from producers.scenario.llm import prompts
from producers.scenario.llm.journal import Standing
from producers.scenario.llm.routing import VALIDATION, WRITING_ROLES, role_of

# {column of a row: its name in the prompt of a validation model}.
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
    """One call: its number, role and model, the ids asked for, the messages, and the JSON schema of the answer."""

    call: int
    role: str
    model: str
    asked: tuple[str, ...]
    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]


class Agenda:
    """The remaining questions of a run, in order; an id is in one of them at a time.

    Attributes:
        singles: ids to ask for again, one per call.
        unscored: ids whose row waits for a validation call.
    """

    def __init__(self, models: Mapping[str, str], standing: Standing) -> None:
        self._models = models
        self._standing = standing
        self._next_call = standing.next_call
        self._batches: deque[tuple[str, ...]] = deque()
        self.singles: deque[str] = deque()
        self.unscored: deque[str] = deque(standing.waiting)
        fresh: dict[str, list[str]] = {role: [] for role in WRITING_ROLES}
        for name in standing.open:
            if standing.asks[name]:
                self.singles.append(name)
                continue
            names = fresh[self._role(name)]
            names.append(name)
            # In the order of the plan, so that a run ended early by a budget has types of both roles.
            if len(names) == prompts.SCENARIOS_PER_CALL:
                self._batches.append(tuple(names))
                names.clear()
        self._batches.extend(tuple(names) for names in fresh.values() if names)

    @property
    def validates(self) -> bool:
        """Whether a model scores the rows before they are sent."""
        return VALIDATION in self._models

    @property
    def has_questions(self) -> bool:
        """Whether any question is left."""
        return bool(self.singles or self._batches or (self.unscored and self.validates))

    def number(self) -> int:
        """Return the number of the next journal entry, and use it up."""
        self._next_call += 1
        return self._next_call - 1

    def next(self, idle: bool) -> Question | None:
        """Return the next question, or None if there is none now.

        Rows are scored five at a time, or fewer if no call is running (`idle`).
        """
        if self.validates and len(self.unscored) >= prompts.SCENARIOS_PER_CALL:
            return self._validating()
        if self.singles:
            return self._writing((self.singles.popleft(),))
        if self._batches:
            return self._writing(self._batches.popleft())
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
