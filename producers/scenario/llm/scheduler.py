"""Ask a run's questions, several calls at a time, and settle each answer.

Answers are settled one at a time: judged, sent to the topic, acknowledged, counted. An id is asked for in a batch of
five ids of its role, and then alone, at most twice. Rows wait for validation until there are five.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from producers.scenario.llm import answers
from producers.scenario.llm.answers import Row
from producers.scenario.llm.client import EndpointError, ModelClient, RetryPolicy, UnansweredError
from producers.scenario.llm.faults import BELOW_MINIMUM, REFUSED, SERVER_ERROR, TIMED_OUT, TIMED_OUT_ADVICE, advice
from producers.scenario.llm.journal import (
    ACCEPTED,
    CONTEXT_TRUNCATED,
    RELEASE,
    WRITTEN,
    Entry,
    JournalFile,
    JournalWriter,
)
from producers.scenario.llm.meter import Usage
from producers.scenario.llm.pace import Pace, calls_at_once
from producers.scenario.llm.prompts import VALIDATION, ContextWatch, request_parameters
from producers.scenario.llm.replies import CUT_OFF_REASON, Reply
from producers.scenario.llm.state import Question, RunState
from schema.errors import ProducerError
from schema.settings import Settings

# Once in a batch and twice alone.
MOST_ASKS = 3
# After this many unanswered calls in a row, or as many as run at once if more, the endpoint counts as unreachable.
_FEWEST_SILENT_CALLS = 3
# The run ends after this many answered writing calls without one acceptable scenario.
_FRUITLESS_CALLS = 10
_OTHER_MODEL = "choose a larger model, or one trained on instructions"
# Characters of a raw answer that the error of a fruitless run shows.
_SHOWN_CHARACTERS = 300


class FruitlessError(ProducerError):
    """The first calls of a run gave no acceptable scenario; the message has the reasons and a raw answer."""


@dataclass(frozen=True)
class Answered:
    """A question with its reply or its error."""

    question: Question
    outcome: Reply | UnansweredError | EndpointError


class Scheduler:
    """Asks for the open scenarios of a run and settles the answers."""

    def __init__(
        self,
        settings: Settings,
        run: str,
        seed: int,
        state: RunState,
        writer: JournalWriter | JournalFile,
        policy: RetryPolicy,
    ) -> None:
        self._settings = settings
        self._run = run
        self._seed = seed
        self._state = state
        self._writer = writer
        self._policy = policy
        self._watch = ContextWatch()
        self._pace = Pace(settings)
        # {model: scenarios of a call whose prompt seems to be cut off}.
        self._truncated_at: dict[str, int] = {}
        self._calls_at_once = calls_at_once(settings)
        # Unanswered calls since the last answered one.
        self._silent: list[tuple[Question, UnansweredError]] = []
        self._any_answered = False
        # Lines about the endpoint, for the report.
        self.notes: list[str] = []
        self._spent: str | None = None
        self._error: ProducerError | None = None
        # Answered writing calls of this part of the run, and reasons for refusals, until the first acceptable scenario.
        self._fruitless_calls = 0
        self._fruitless_reasons: Counter[str] = Counter()

    async def ask_all(self, on_progress: Callable[[int, str], None] | None = None) -> str | None:
        """Ask until no scenario is open or a budget is spent; return the budget's error line, or None.

        Raises:
            EndpointError: the endpoint refuses, does not answer, or truncates prompts.
            FruitlessError: the first ten calls gave no acceptable scenario.
            DeliveryError: the broker did not accept a record.
        """
        busy: set[asyncio.Task[Answered]] = set()
        async with ModelClient(self._settings, self._policy, self._seed, self._pace) as client:
            self.notes = client.notes
            try:
                while True:
                    while len(busy) < self._calls_at_once and (question := self._next(not busy)):
                        busy.add(asyncio.create_task(_ask(client, question, self._settings)))
                    if not busy:
                        if await self._resolve_silence(client.url):
                            continue
                        break
                    done, busy = await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        await self._settle(task.result(), client.url)
                        if on_progress:
                            on_progress(*self._progress())
            finally:
                for task in busy:
                    task.cancel()
        if self._error is not None:
            raise self._error
        if self._state.unscored:
            await self._release()
        return self._spent

    def _progress(self) -> tuple[int, str]:
        total = self._state.meter.total
        cost = "" if total.cost_usd is None else f", {total.cost_usd:.4f} USD"
        return (
            len(self._state.accepted) + len(self._state.rejected),
            f"{total.calls:,} calls, {total.tokens:,} tokens{cost}, {len(self._state.rejected):,} rejected",
        )

    def _next(self, idle: bool) -> Question | None:
        """Return the next question, or None if there is none now or none may be asked; `idle`: no call is running."""
        if self._error is None and self._state.has_questions:
            self._spent = self._state.meter.spent(self._settings)
        if self._error is not None or self._spent is not None:
            return None
        return self._state.next_question(idle, self._pace.scenarios_per_call)

    async def _settle(self, answered: Answered, url: str) -> None:
        question, outcome = answered.question, answered.outcome
        if isinstance(outcome, EndpointError):
            self._error = self._error or outcome
        elif isinstance(outcome, UnansweredError):
            self._silent.append((question, outcome))
            if outcome.fault == TIMED_OUT and question.role != VALIDATION:
                self._pace.shrink(len(question.asked) // 2)
            if len(self._silent) >= max(_FEWEST_SILENT_CALLS, self._calls_at_once):
                self._error = self._error or self._unreachable(url)
        else:
            self._any_answered = True
            await self._count_silent()
            if question.role == VALIDATION:
                await self._settle_scores(question, outcome)
            else:
                await self._settle_scenarios(question, outcome)

    async def _resolve_silence(self, url: str) -> bool:
        """Settle the unanswered calls once no call is running; return whether there may be more to ask."""
        if not self._silent or self._error is not None or self._spent is not None:
            return False
        if not self._any_answered:
            self._error = self._unreachable(url)
            return False
        await self._count_silent()
        return True

    @property
    def _again(self) -> str:
        return f"--run {self._run} --seed {self._seed} --count {len(self._state.cells)} to resume"

    def _unreachable(self, url: str) -> EndpointError:
        _, latest = self._silent[-1]
        if latest.fault == REFUSED:
            line = (
                f"{url} refuses the questions ({latest.reason}): correct FEEDMILL_LLM_REQUEST and "
                "FEEDMILL_LLM_RESPONSE_FORMAT if they are set, or choose other models"
            )
        elif latest.fault == TIMED_OUT:
            line = f"{url} gives no answer ({latest.reason}): {TIMED_OUT_ADVICE}"
        elif latest.fault == SERVER_ERROR:
            line = f"{url} gives no answer ({latest.reason}): read the server's log and mend the server"
        else:
            line = f"{url} gives no answer ({latest.reason}): start the server or correct FEEDMILL_LLM_BASE_URL"
        return EndpointError(f"{line}, then run again with {self._again}")

    async def _count_silent(self) -> None:
        """Count the unanswered calls against their ids, because the server answers other calls.

        Before any answer they are not counted, so an unreachable server does not use up the asks of an id.
        """
        silent, self._silent = self._silent, []
        for question, error in silent:
            entry = self._entry(question, error)
            if question.role == VALIDATION:
                await self._send_scored(question, {}, entry)
            else:
                faults = dict.fromkeys(question.asked, error.fault)
                if error.fault == TIMED_OUT and len(question.asked) > 1:
                    # Each id alone may be answered in time.
                    await self._send(replace(entry, verdicts=faults, counts=False), [])
                else:
                    await self._send_written(question, answers.JudgedAnswer(faults=faults), entry)

    async def _settle_scenarios(self, question: Question, reply: Reply) -> None:
        entry = self._entry(question, reply)
        alone = len(question.asked) == 1
        is_truncated = self._is_truncated(question, reply)
        if alone and not is_truncated and question.model in self._truncated_at:
            # The server reports prompts as they are, so the longer one was cut off.
            self._pace.shrink(self._truncated_at.pop(question.model) // 2)
        if is_truncated and not alone:
            self._truncated_at[question.model] = len(question.asked)
            verdicts = dict.fromkeys(question.asked, CONTEXT_TRUNCATED)
            await self._send(replace(entry, verdicts=verdicts, counts=False), [])
            return
        cells = {name: self._state.cells[name] for name in question.asked}
        read = answers.read(reply, question.asked)
        self._pace.answered(len(question.asked), reply.usage.completion_tokens, reply.elapsed_s)
        if reply.finish_reason == CUT_OFF_REASON:
            self._pace.shrink(len(read.scenarios))
        # In a thread, because the first judgement compiles the rules and must not delay the timeouts of other calls.
        judged = await asyncio.to_thread(answers.judge, read, cells, self._common(question), self._state.texts)
        if is_truncated and not judged.accepted:
            await self._send(replace(entry, verdicts=dict.fromkeys(question.asked, CONTEXT_TRUNCATED)), [])
            self._error = self._error or EndpointError(
                f"model {question.model} read only a part of a prompt for one scenario: raise the context length "
                f"of its server (Ollama: num_ctx), then run again with {self._again}"
            )
            return
        if is_truncated:
            # Only a model that read the whole prompt can follow all its rules: the server reports too few tokens.
            self._watch.leave_out(question.model)
            self._truncated_at.pop(question.model, None)
        await self._send_written(question, judged, entry)
        self._fruitless_calls += 1
        self._brake(question, reply, [reason for fault in judged.faults.values() for reason in fault.split(",")])

    def _brake(self, question: Question, reply: Reply, reasons: Iterable[str]) -> None:
        """End the run if its first calls gave no acceptable scenario, so that a useless model costs little.

        `reasons` are those for which scenarios of this call were refused.
        """
        self._fruitless_reasons.update(reasons)
        if self._state.accepted or self._state.waiting or self._fruitless_calls < _FRUITLESS_CALLS:
            return
        counted = self._fruitless_reasons.most_common()
        text = " ".join(reply.text.split())[:_SHOWN_CHARACTERS]
        told = "; ".join([*self.notes, *(advice(reason for reason, _ in counted) or [_OTHER_MODEL])])
        self._error = self._error or FruitlessError(
            f"the first {self._fruitless_calls} calls gave no acceptable scenario "
            f"({', '.join(f'{times:,} {reason}' for reason, times in counted)}); an answer of model {question.model} "
            f"begins {text!r}; {told}; then run again with {self._again}"
        )

    async def _send_written(self, question: Question, judged: answers.JudgedAnswer, entry: Entry) -> None:
        """Send the result of a writing call: its accepted rows, and one faulty row for each id given up."""
        usage = Usage(entry.prompt_tokens, entry.completion_tokens)
        shares = dict(zip(question.asked, usage.shares(len(question.asked)), strict=True))
        rejected = [name for name in judged.faults if self._state.asks[name] + 1 >= MOST_ASKS]
        faulty = {
            name: judged.refused.get(
                name, {**self._common(question), "scenario_id": name, "answer_fault": judged.faults[name]}
            )
            for name in rejected
        }
        accepted, faulty = (
            {name: self._priced(row, shares[name]) for name, row in rows.items()} for rows in (judged.accepted, faulty)
        )
        waits = self._state.validates
        verdicts = {**dict.fromkeys(accepted, WRITTEN if waits else ACCEPTED), **judged.faults}
        entry = replace(
            entry, verdicts=verdicts, rejected=rejected, texts=sorted(judged.texts), answers=accepted if waits else {}
        )
        await self._send(entry, [*(() if waits else accepted.values()), *faulty.values()])

    async def _settle_scores(self, question: Question, reply: Reply) -> None:
        # Scores from a truncated prompt are invalid.
        scores = {} if self._is_truncated(question, reply) else answers.scores_in(reply.text, question.asked)
        await self._send_scored(question, scores, self._entry(question, reply))
        self._brake(question, reply, [BELOW_MINIMUM for name in scores if name not in self._state.accepted])

    async def _send_scored(self, question: Question, scores: Mapping[str, float], entry: Entry) -> None:
        """Send scored rows. One below the minimum is asked for again, or sent with its fault if it may not be."""
        low = {name for name, score in scores.items() if score < self._settings.llm_validation_minimum}
        rejected = [name for name in question.asked if name in low and self._state.asks[name] >= MOST_ASKS]
        rows = []
        for name in question.asked:
            if name in low and name not in rejected:
                continue
            row = dict(self._state.waiting[name])
            if name in scores:
                row |= {"validation_model": question.model, "validation_score": scores[name]}
            if name in low:
                row["answer_fault"] = BELOW_MINIMUM
            rows.append(row)
        verdicts = {name: BELOW_MINIMUM if name in low else ACCEPTED for name in question.asked}
        unvalidated = len(question.asked) - len(scores)
        await self._send(replace(entry, verdicts=verdicts, rejected=rejected, unvalidated=unvalidated), rows)

    async def _release(self) -> None:
        """Send the rows that wait for validation but can no longer be validated."""
        waiting = {name: self._state.waiting[name] for name in self._state.unscored}
        self._state.unscored.clear()
        entry = Entry(
            call=self._state.number(),
            role=RELEASE,
            asked=list(waiting),
            verdicts=dict.fromkeys(waiting, ACCEPTED),
            unvalidated=len(waiting) if self._state.validates else 0,
        )
        await self._send(entry, list(waiting.values()))

    async def _send(self, entry: Entry, rows: Sequence[Row]) -> None:
        # An entry counts only after it is acknowledged.
        await asyncio.to_thread(self._writer.send, entry, rows)
        self._state.apply(entry)

    def _entry(self, question: Question, outcome: Reply | UnansweredError) -> Entry:
        """Return the journal fields that are known before the answer is judged."""
        usage = outcome.usage if isinstance(outcome, Reply) else Usage()
        return Entry(
            call=question.call,
            role=question.role,
            model=question.model,
            asked=list(question.asked),
            answered=isinstance(outcome, Reply),
            tries=outcome.tries,
            attempt=1 + max(self._state.asks[name] for name in question.asked),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost_usd=usage.cost_usd(self._settings.llm_prices, question.model),
        )

    def _is_truncated(self, question: Question, reply: Reply) -> bool:
        alike = question.role != VALIDATION
        return self._watch.is_truncated(question.model, question.messages, reply.seen_tokens, alike=alike)

    def _common(self, question: Question) -> Row:
        return {
            "generator": "llm",
            "model": question.model,
            "batch_id": f"{self._run}/{question.call}",
            "seed": self._seed,
            "chunk": question.call,
        }

    def _priced(self, row: Row, share: Usage) -> Row:
        return {
            **row,
            "prompt_tokens": share.prompt_tokens,
            "completion_tokens": share.completion_tokens,
            "cost_usd": share.cost_usd(self._settings.llm_prices, row["model"]),
        }


async def _ask(client: ModelClient, question: Question, settings: Settings) -> Answered:
    parameters = request_parameters(settings, question.role)
    try:
        return Answered(question, await client.ask(question.model, question.messages, question.schema, parameters))
    except (UnansweredError, EndpointError) as error:
        return Answered(question, error)
