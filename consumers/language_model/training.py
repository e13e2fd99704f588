"""A run of `feedmill train code` or `train scenario`: the feed, the task and the options that a run file asks for."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from broker.clients import Connection
from consumers.feed import Feed, FeedOptions
from consumers.form_options import FormOptions
from consumers.language_model.base_model import TINY, TinySizes
from consumers.language_model.run_file import DatasetPart, RunFile, written
from consumers.language_model.saved_model import adapter_base, is_adapter
from consumers.language_model.task import LanguageModelTask
from consumers.scenario.byte_tokenizer import byte_tokenizer
from consumers.sequence.spec import Curriculum
from consumers.source_code.document_filters import DocumentFilters
from consumers.source_code.tokenizer import LoadedTokenizer, load_tokenizer
from consumers.train_rows import RowCounts, count_rows
from consumers.training.budget import Budget
from consumers.training.checkpoint import read_trainer
from consumers.training.options import Execution, Judging, Optimisation, Saving, TrainOptions, bf16_is_fast
from consumers.training.ranks import Ranks
from consumers.training.report import Step, TrainReport
from consumers.training.run import train
from consumers.training.run_folder import find_checkpoint
from consumers.training.stopping import StopRequest
from schema.errors import CheckpointError, UsageError
from schema.registry import family_named
from schema.stale_files import in_making

RUN_FILE = "run.yml"
# A column of documents, and where its phases 2 and 3 begin.
_CURRICULUM = Curriculum(column="phase", edges=(2, 3))
# Tokens of the sequences in memory at once, of 8 bytes each.
_WINDOW_TOKENS = 1 << 24

OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class ModelTraining(ABC):
    """A run file with the places where it runs; a family says what its feed takes.

    Attributes:
        file: the run file.
        connection: the broker.
        out: the run's folder.
        cache: folder of tokenized documents.
        trust_base: take a base model as it is.
        resume: continue the run in `out`.
        leave_out_retracted: resume although rows of the run were retracted since, without these rows.
        family: whose clean topic is read.
        kinds: the column by which a model card counts rows.
    """

    file: RunFile
    connection: Connection
    out: Path
    cache: Path
    trust_base: bool = False
    resume: bool = False
    leave_out_retracted: bool = False
    family: ClassVar[str]
    kinds: ClassVar[str]

    @abstractmethod
    def conditions(self) -> dict[str, str]:
        """Return an SQL condition for each reason to leave a row out, true for one that passes.

        Raises:
            UsageError: the run file asks for what the family does not have.
        """

    @abstractmethod
    def tokenizer(self) -> LoadedTokenizer:
        """Return the tokenizer.

        Raises:
            UsageError: the run file names none, or it cannot be loaded.
            CheckpointError: an earlier run cannot be read.
        """

    @abstractmethod
    def form(self) -> FormOptions | None:
        """Return how rows become sequences; None if the family has one way only."""

    def counts(self) -> RowCounts:
        """Return how many rows of split train pass the conditions; see `consumers.train_rows.count_rows`."""
        return count_rows(self.connection, family_named(self.family), self.conditions(), self.kinds)

    def task(self) -> LanguageModelTask:
        """Return the task.

        Raises:
            UsageError: the tokenizer cannot be loaded, or the sizes make no model.
        """
        model = self.file.model
        return LanguageModelTask(
            family=self.family,
            tokenizer=self.tokenizer(),
            context=self.file.train.sequence_length,
            base=model.base,
            sizes=TinySizes(hidden_size=model.hidden_size, layers=model.layers, heads=model.heads),
            lora=model.lora,
            trust_base=self.trust_base,
        )

    def feed(self, rank: int = 0, world: int = 1) -> Feed:
        """Return a rank's feed of packed rows.

        Raises:
            UsageError: an option is invalid.
            BrokerError: the broker cannot be read.
        """
        asked, length = self.file.dataset, self.file.train.sequence_length
        conditions = self.conditions().values()
        return Feed(
            self.connection,
            self.family,
            split="train",
            batch_size=self.file.train.batch_size,
            shuffle_seed=asked.shuffle_seed,
            options=FeedOptions(
                form=self.form(),
                # Two brackets keep a condition such as `a) OR (b` together, and the line break ends a comment.
                where=" AND ".join(f"(({condition}\n))" for condition in conditions) or None,
                max_tokens=length,
                pack_tokens=length,
                weight_column="weight" if asked.weights else None,
                curriculum=_CURRICULUM if self.file.train.curriculum else None,
                window_rows=max(1024, _WINDOW_TOKENS // length),
                leave_out_retracted=self.leave_out_retracted,
                rank=rank,
                world=world,
            ),
        )

    def options(self, ranks: Ranks, *, replace: bool) -> TrainOptions:
        """Return the options of the run; passes become steps, by counting the batches of one pass.

        Raises:
            UsageError: no row passes the filters.
        """
        asked = self.file.train
        load_from = self.file.model.load_from
        return TrainOptions(
            saving=Saving(
                out=self.out,
                every_steps=asked.checkpoint_every,
                resume=self.resume,
                replace=replace,
                init_from=None if load_from is None or self.resume else Path(load_from),
            ),
            budget=Budget(steps=asked.steps or ranks.from_first(self._steps_of_epochs)),
            seed=asked.seed,
            optimisation=Optimisation(
                learning_rate=asked.learning_rate,
                warmup_steps=asked.warmup_steps,
                weight_decay=asked.weight_decay,
                accumulation=asked.accumulation,
                bf16=bf16_is_fast(ranks.device) if asked.bf16 is None else asked.bf16,
            ),
            execution=Execution(gradient_checkpointing=asked.gradient_checkpointing),
            judging=Judging(rows=asked.held_out_rows, every_steps=asked.eval_every),
        )

    def _steps_of_epochs(self) -> int:
        if self.resume:
            # The topic may have grown since; the run keeps its offsets, and so its length.
            steps: int = read_trainer(find_checkpoint(self.out))["budget"]["steps"]
            return steps
        batches = sum(1 for _ in self.feed())
        if not batches:
            raise UsageError("no row passes the filters of the run file: relax them, or produce more")
        return max(1, (self.file.train.epochs or 1) * batches // self.file.train.accumulation)

    def train(self, options: TrainOptions, ranks: Ranks, stop: StopRequest, on_step: OnStep) -> TrainReport:
        """Train as `consumers.training.run.train` does, and keep the run file in the run's folder."""

        path, text, is_written = self.out / RUN_FILE, written(self.file), False

        def stepped(step: Step) -> None:
            nonlocal is_written
            # Only now is the folder this run's own. A resume may have more steps than the file that it was read from.
            if not is_written:
                making = in_making(path, "part")
                making.write_text(text, encoding="utf-8")
                making.replace(path)
                is_written = True
            on_step(step)

        return train(self.task(), self.feed(ranks.rank, ranks.world), options, stepped, ranks=ranks, stop=stop)


@dataclass(frozen=True)
class CodeTraining(ModelTraining):
    """Trains on documents of code; a document longer than a row is cut."""

    family = "code"
    kinds = "kind"

    def conditions(self) -> dict[str, str]:
        """Return the filters of the run file's part `dataset`."""
        asked = self.file.dataset
        return DocumentFilters(
            min_length=asked.min_length,
            max_length=asked.max_length,
            exclude_tests=asked.exclude_tests,
            exclude_examples=asked.exclude_examples,
            exclude_benches=asked.exclude_benches,
            prefer_idiomatic=asked.prefer_idiomatic,
            prefer_documented=asked.prefer_documented,
            languages=None if asked.languages is None else tuple(asked.languages),
            where=asked.where,
            others_share=asked.others_share,
            others_seed=asked.shuffle_seed,
        ).conditions()

    def tokenizer(self) -> LoadedTokenizer:
        """Return the tokenizer of the checkpoint, the run file, the earlier run, or the base model."""
        chosen, earlier = load_tokenizer(self._tokenizer_place()), self.file.model.load_from
        if earlier is not None and not self.resume:
            known = load_tokenizer(str(find_checkpoint(Path(earlier))))
            if known.sha256 != chosen.sha256:
                raise UsageError(
                    f"the run {earlier} has another tokenizer than {chosen.found_at}: leave the tokenizer out, or "
                    "load_from out"
                )
        return chosen

    def _tokenizer_place(self) -> str:
        model = self.file.model
        if self.resume:
            return str(find_checkpoint(self.out))
        if model.tokenizer is not None:
            return model.tokenizer
        if model.load_from is not None:
            return str(find_checkpoint(Path(model.load_from)))
        if model.base == TINY:
            raise UsageError(
                "the tiny model needs a tokenizer: make one with `feedmill tokenizer train code --out tokenizer.json`, "
                "and name it as `tokenizer` of the part `model`, or with --tokenizer"
            )
        folder = Path(model.base)
        return adapter_base(folder) if is_adapter(folder) else model.base

    def form(self) -> FormOptions:
        """Return windows without overlap, each document with the tokenizer's end token."""
        length = self.file.train.sequence_length
        return FormOptions(
            tokenizer=self._tokenizer_place(),
            window=length,
            stride=length,
            completions=True,
            cache=self.cache if self.file.dataset.use_cache else None,
        )


@dataclass(frozen=True)
class ScenarioTraining(ModelTraining):
    """Trains on scenarios, a token for each byte: context and request are the prompt, the response is learned.

    A scenario longer than a row is left out and counted.
    """

    family = "scenario"
    kinds = "complexity_type"

    def conditions(self) -> dict[str, str]:
        """Return the condition of the run file, if it has one; the other filters are those of code."""
        asked, untouched = self.file.dataset, DatasetPart()
        of_code = [
            name
            for name in DatasetPart.model_fields
            if name not in ("where", "shuffle_seed", "use_cache") and getattr(asked, name) != getattr(untouched, name)
        ]
        if of_code or self.file.train.curriculum:
            raise UsageError(
                f"{', '.join(of_code) or 'curriculum'} applies to code only: leave it out of a run file for scenarios"
            )
        return {} if asked.where is None else {"where": asked.where}

    def tokenizer(self) -> LoadedTokenizer:
        """Return the tokenizer of the family's bytes."""
        model = self.file.model
        if model.base != TINY or model.tokenizer is not None:
            raise UsageError(
                "a scenario has a token for each byte: leave base and tokenizer out, or load_from a run on scenarios"
            )
        text = byte_tokenizer()
        return LoadedTokenizer(text, "the bytes of scenarios", hashlib.sha256(text.encode()).hexdigest())

    def form(self) -> None:
        """Return None: scenarios have one form."""


def saved_run_file(out: Path) -> Path:
    """Return the run file that a run's folder holds.

    Raises:
        CheckpointError: there is none.
    """
    path = out / RUN_FILE
    if not path.is_file():
        raise CheckpointError(f"{out} holds no run with a run file: give --config for a new run")
    return path
