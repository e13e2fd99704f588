"""A search for good settings of `feedmill train code`: trials of a run file, kept in a file that a later call resumes.

Optuna's TPE sampler chooses the settings of each trial from the results of the earlier ones. The study is a journal of
JSON lines. A trial that was killed in the middle is tried again first, with the same settings. A line that was cut off,
by `kill -9` or a full disk, is removed first, because Optuna would write the next line behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from consumers.language_model.run_file import RunFile
from schema.errors import FeedmillError, UsageError

STUDY, LOCK = "study.jsonl", ".lock"
_NAME = "sweep"
_LENGTHS = (256, 512, 1024, 2048, 4096)
_RANKS = (4, 8, 16, 32, 64)
# Fewer trials than this are drawn at random.
_RANDOM_TRIALS = 5

RunTrial = Callable[[int, RunFile], float]


@dataclass(frozen=True)
class Trial:
    """A trial: its settings, its metric (None without one), and its state: complete, failed, stopped or running.

    A trial that was stopped is tried again under another number.
    """

    number: int
    settings: Mapping[str, Any]
    metric: float | None
    state: str
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        return asdict(self)


class TrialFailedError(FeedmillError):
    """A trial failed; the sweep goes on with the next one."""


def space(file: RunFile) -> dict[str, BaseDistribution]:
    """Return what a sweep of a run file varies: learning rate, length of rows, and rank and alpha of an adapter.

    Rows are not made longer than those of the run file.
    """
    lengths = [length for length in _LENGTHS if length <= file.train.sequence_length]
    varied: dict[str, BaseDistribution] = {
        "learning_rate": FloatDistribution(5e-5, 5e-4, log=True),
        "sequence_length": CategoricalDistribution(lengths or [file.train.sequence_length]),
    }
    if file.model.lora is not None:
        varied |= {"r": CategoricalDistribution(_RANKS), "alpha": CategoricalDistribution(_RANKS)}
    return varied


def trial_file(file: RunFile, settings: Mapping[str, Any]) -> RunFile:
    """Return the run file of a trial; a batch keeps its tokens when its rows get shorter."""
    values = file.model_dump()
    ratio = file.train.sequence_length / settings["sequence_length"]
    values["train"] |= {
        "learning_rate": settings["learning_rate"],
        "sequence_length": settings["sequence_length"],
        "batch_size": max(1, round(file.train.batch_size * ratio)),
    }
    if "r" in settings:
        values["model"]["lora"] |= {"r": settings["r"], "alpha": settings["alpha"]}
    return RunFile.model_validate(values)


def planned(file: RunFile, count: int, seed: int) -> list[RunFile]:
    """Return run files as trials of a sweep have them, drawn at random; no folder is read or written."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draft = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [trial_file(file, draft.ask(space(file)).params) for _ in range(count)]


class Sweep:
    """A study in a folder; a context manager, because it locks the folder.

    Args:
        file: the run file that is varied.
        folder: holds the study.
        seed: of the sampler.
        largest: whether a larger metric is better.

    Raises:
        UsageError: the folder holds a study of other settings, or cannot be used, or another sweep runs in it.
    """

    def __init__(self, file: RunFile, folder: Path, seed: int, *, largest: bool) -> None:
        self._file, self._space = file, space(file)
        self._lock = FileLock(folder / LOCK, blocking=False)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            _repair(folder)
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
                study_name=_NAME,
                load_if_exists=True,
                direction="maximize" if largest else "minimize",
            )
        except Timeout:
            raise UsageError(f"another sweep runs in {folder}: wait for it, or choose another --out") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            # The file may hold any JSON, and Optuna does not check it.
            self._lock.release()
            raise UsageError(f"{folder} holds no study that can go on ({error}): choose another --out") from None
        about = {"file": file.model_dump(mode="json"), "largest": largest}
        known = self._study.user_attrs.get("about")
        if known is None:
            self._study.set_user_attr("about", about)
        elif known != about:
            self._lock.release()
            raise UsageError(
                f"{folder} holds a study of another run file, number of steps, tokenizer or metric: "
                "give those of the study, or choose another --out"
            )

        # A later call must not draw the same numbers again.
        drawn = seed * 1_000_003 + len(self._study.trials)
        self._study.sampler = optuna.samplers.TPESampler(seed=drawn % (1 << 32), n_startup_trials=_RANDOM_TRIALS)

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def run(self, trials: int, run_trial: RunTrial) -> None:
        """Run trials until the study has `trials` that ended, those of earlier calls included.

        A trial that fails counts, and the next one follows. If the first three all fail, the sweep ends.

        Args:
            trials: how many, in all.
            run_trial: trains by a run file and returns the metric; called with the trial's number.

        Raises:
            UsageError: the first three trials failed; the line has the reason of the last one.
        """
        for stale in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(stale.number, state=TrialState.FAIL)
            self._study.enqueue_trial({**stale.params})
        while (ended := self._ended()) < trials:
            trial = self._study.ask(self._space)
            try:
                value = run_trial(trial.number, trial_file(self._file, trial.params))
                if not math.isfinite(value):
                    # Optuna keeps no such value, and the trial would never count.
                    raise TrialFailedError(f"the metric is {value}, so its training diverged")
            except TrialFailedError as error:
                trial.set_user_attr("error", str(error))
                self._study.tell(trial, state=TrialState.FAIL)
                if ended >= 2 and not any(each.state == "complete" for each in self.trials()):
                    raise UsageError(f"the first {ended + 1} trials failed, the last one with: {error}") from None
                continue
            self._study.tell(trial, value)

    def _ended(self) -> int:
        """Return how many trials ended by themselves."""
        return sum(each.state in ("complete", "failed") for each in self.trials())

    def trials(self) -> list[Trial]:
        """Return all trials, the best first, then those without a metric by number."""
        found = [
            Trial(each.number, dict(each.params), each.value, _state(each), each.user_attrs.get("error", ""))
            for each in self._study.get_trials(deepcopy=False)
        ]
        sign = -1 if self._study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
        return sorted(found, key=lambda each: (each.metric is None, sign * (each.metric or 0.0), each.number))


def _repair(folder: Path) -> None:
    """Remove what a killed process left: its lock on the study, and a last line that was cut off.

    The caller holds the lock of the folder, so no other process writes.
    """
    (folder / f"{STUDY}.lock").unlink(missing_ok=True)
    with suppress(FileNotFoundError), (folder / STUDY).open("r+b") as stream:
        data = stream.read()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            stream.truncate(end)


def _state(trial: optuna.trial.FrozenTrial) -> str:
    if trial.state is TrialState.FAIL:
        return "failed" if "error" in trial.user_attrs else "stopped"
    return str(trial.state.name).lower()
