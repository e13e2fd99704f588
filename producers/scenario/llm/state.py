"""The state of a run, and its next question: five new ids of a role, one id again, or rows that wait for a score.

The state is a fold of the journal. An entry counts the same whether it was just sent or is read back, so a killed run
resumes in the same state.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from producers.scenario.llm import prompts
from producers.scenario.llm.answers import Cell, Row
from producers.scenario.llm.journal import ACCEPTED, CONTEXT_TRUNCATED, WRITTEN, Entry
from producers.scenario.llm.meter import Meter, Usage
from producers.scenario.llm.pace import SCENARIOS_PER_CALL
from producers.scenario.llm.prompts import VALIDATION, WRITING_ROLES, role_of


@dataclass(frozen=True)
class Question:
    """One call: its number, role and model, the ids asked for, the messages, and the JSON schema of the answer."""

    call: int
    role: str
    model: str
    asked: tuple[str, ...]
    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]


class RunState:
    """The state of a run: its ids, calls and costs, and the queues of the ids that are to be asked for.

    An id is in one queue at a time, and in none while it is asked for.

    Attributes:
        cells: {id: {axis: bin}}, in the order of the plan.
        asks: {id: how often it was asked for}.
        waiting: {id: its written row, which waits for validation}.
        accepted: ids whose row is on the topic.
        rejected: {id given up: the reason}.
        faults: {id: the fault of its last answer}, for ids whose last answer was refused.
        refusals: {reason: how many answers were refused for it}, later accepted ones included.
        texts: example ids of accepted and waiting rows.
        unscored: the queue of ids whose row waits for a validation call.
    """

    def __init__(self, cells: Mapping[str, Cell], models: Mapping[str, str], entries: Iterable[Entry] = ()) -> None:
        """Fold the journal's entries, and queue the remaining ids.

        `cells` is {id: its cell}, in the order of the plan; `models` is {role: model}.
        """
        self.cells = dict(cells)
        self.asks: Counter[str] = Counter()
        self.waiting: dict[str, Row] = {}
        self.accepted: set[str] = set()
        self.rejected: dict[str, str] = {}
        self.faults: dict[str, str] = {}
        self.refusals: Counter[str] = Counter()
        self.texts: set[int] = set()
        self.meter = Meter()
        self.retries = 0
        self.asked_again = 0
        self.unanswered = 0
        self.unvalidated = 0
        self.unscored: deque[str] = deque()
        self._models = models
        self._next_call = 1
        # Ids to ask for the first time, by call, and ids to ask for again, each alone.
        self._batches: deque[tuple[str, ...]] = deque()
        self._singles: deque[str] = deque()
        for entry in entries:
            self.apply(entry)
        self._queue_open()

    @property
    def open(self) -> list[str]:
        """The ids that have no row and are not given up, in the order of the plan."""
        settled = self.accepted | self.rejected.keys() | self.waiting.keys()
        return [name for name in self.cells if name not in settled]

    @property
    def validates(self) -> bool:
        """Whether a model scores the rows before they are sent."""
        return VALIDATION in self._models

    @property
    def has_questions(self) -> bool:
        """Whether any question is left."""
        return bool(self._singles or self._batches or (self.unscored and self.validates))

    def number(self) -> int:
        """Return the number of the next journal entry, and use it up."""
        self._next_call += 1
        return self._next_call - 1

    def next_question(self, idle: bool, scenarios: int = SCENARIOS_PER_CALL) -> Question | None:
        """Return the next question, for at most `scenarios`, or None if there is none now.

        Rows are scored five at a time, or fewer if no call is running (`idle`).
        """
        if self.validates and len(self.unscored) >= SCENARIOS_PER_CALL:
            return self._validating()
        if self._singles:
            return self._writing((self._singles.popleft(),))
        if self._batches:
            batch = self._batches.popleft()
            if len(batch) > scenarios:
                self._batches.appendleft(batch[scenarios:])
            return self._writing(batch[:scenarios])
        if idle and self.validates and self.unscored:
            return self._validating()
        return None

    def apply(self, entry: Entry) -> None:
        """Count one entry of the journal, and queue its ids that are not settled."""
        self._next_call = max(self._next_call, entry.call + 1)
        self.retries += max(0, entry.tries - 1)
        self.unvalidated += entry.unvalidated
        if entry.role in WRITING_ROLES:
            self.asked_again += entry.attempt > 1
            if entry.counts:
                self.asks.update(entry.asked)
        self.texts.update(entry.texts)
        for name, verdict in entry.verdicts.items():
            self._settle(name, verdict, entry)
        if entry.model is None:
            return
        if entry.answered:
            usage = Usage(entry.prompt_tokens, entry.completion_tokens)
            self.meter.add(entry.role, entry.model, usage, entry.cost_usd)
        else:
            self.unanswered += 1

    def _settle(self, name: str, verdict: str, entry: Entry) -> None:
        if verdict == ACCEPTED:
            self.accepted.add(name)
            self.waiting.pop(name, None)
            return
        if verdict == WRITTEN:
            self.waiting[name] = entry.answers[name]
            self.unscored.append(name)
            return
        # A row that waited may be refused by its score.
        self.waiting.pop(name, None)
        self.refusals.update(verdict.split(","))
        if entry.answered and verdict != CONTEXT_TRUNCATED:
            self.faults[name] = verdict
        if name in entry.rejected:
            self.rejected[name] = verdict
        else:
            self._singles.append(name)

    def _queue_open(self) -> None:
        """Fill the queues from the ids: no call is running."""
        self.unscored = deque(self.waiting)
        self._singles.clear()
        fresh: dict[str, list[str]] = {role: [] for role in WRITING_ROLES}
        for name in self.open:
            if self.asks[name]:
                self._singles.append(name)
                continue
            names = fresh[self._role(name)]
            names.append(name)
            # In the order of the plan, so that a run ended early by a budget has types of both roles.
            if len(names) == SCENARIOS_PER_CALL:
                self._batches.append(tuple(names))
                names.clear()
        self._batches.extend(tuple(names) for names in fresh.values() if names)

    def _role(self, name: str) -> str:
        return role_of(self.cells[name]["complexity_type"])

    def _writing(self, asked: tuple[str, ...]) -> Question:
        cells = {name: self.cells[name] for name in asked}
        messages = prompts.writing(cells, self.faults)
        return self._question(self._role(asked[0]), asked, messages, prompts.writing_schema(len(cells)))

    def _validating(self) -> Question:
        count = min(len(self.unscored), SCENARIOS_PER_CALL)
        asked = tuple(self.unscored.popleft() for _ in range(count))
        messages = prompts.validating({name: self.waiting[name] for name in asked})
        return self._question(VALIDATION, asked, messages, prompts.validation_schema(len(asked)))

    def _question(
        self, role: str, asked: tuple[str, ...], messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any]
    ) -> Question:
        return Question(self.number(), role, self._models[role], asked, messages, schema)
