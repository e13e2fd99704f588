"""The steps of `feedmill iterate`; each keeps its result in a file, so an iteration that was killed goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from feedmill.child_command import last_line, run_child
from feedmill.progress import OnAdvance, progress
from schema.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from broker.clients import Connection
    from consumers.code_evaluation.samples import CodeSample
    from consumers.code_evaluation.verdicts import CodeVerdict
    from consumers.expert_iteration.experts import Bounds
    from consumers.expert_iteration.judging import Judging
    from consumers.expert_iteration.prompts import Fits, FunctionPrompt, Judge
    from consumers.expert_iteration.round_files import RoundFiles
    from consumers.language_model.generation import Sampling
    from consumers.language_model.run_file import DatasetPart, RunFile

_DRAIN_WITHIN_S = 600.0


@dataclass
class Iteration:
    """The steps of an iteration; a step whose file is there does nothing.

    Attributes:
        connection: the broker.
        files: the results of the steps.
        file: the run file of each training.
        judging: compiler and linter.
        bounds: which completions are kept.
        sampling: how an expert's tokens are drawn.
        quiet: show no progress.
        training, held_out: the prompts, once they are chosen.
    """

    connection: Connection
    files: RoundFiles
    file: RunFile
    judging: Judging
    bounds: Bounds
    sampling: Sampling
    quiet: bool
    training: Sequence[FunctionPrompt] = field(default_factory=list)
    held_out: Sequence[FunctionPrompt] = field(default_factory=list)

    def choose(self, language: str, training: int, held_out: int, fits: Fits, seed: int) -> dict[str, Any]:
        """Choose the prompts, and return how many there are."""
        from consumers.expert_iteration.prompts import FunctionPrompt, choose_prompts

        def make() -> Iterator[dict[str, Any]]:
            with progress("choosing prompts", None, "functions compiled", quiet=self.quiet) as advance:
                chosen = choose_prompts(
                    self.connection,
                    language,
                    self._counted(advance),
                    training=training,
                    held_out=held_out,
                    fits=fits,
                    seed=seed,
                )
            if not chosen.training or not chosen.held_out:
                raise UsageError(
                    f"the topic has {chosen.found['training']:,} functions in {language} of split train and "
                    f"{chosen.found['held_out']:,} of the others, and those that compile alone are "
                    f"{len(chosen.training)} and {len(chosen.held_out)}: produce more code"
                )
            yield {"found": chosen.found, "overlapping": chosen.overlapping, "judged": chosen.judged}
            yield from map(asdict, (*chosen.training, *chosen.held_out))

        about, *rows = self.files.rows_once("prompts.jsonl", make)
        try:
            prompts = [FunctionPrompt(**row) for row in rows]
        except TypeError:
            path = self.files.path("prompts.jsonl")
            raise UsageError(f"{path} holds other rows than prompts: remove it, and choose another --out") from None
        self.training = [each for each in prompts if each.split == "train"]
        self.held_out = [each for each in prompts if each.split != "train"]
        return {"training": len(self.training), "held_out": len(self.held_out), **about}

    def begin(self, model: str) -> dict[str, Any]:
        """Return the figures of the model that the iteration begins with."""
        return {"round": 0, **self._measure("round-0", model)}

    def round(self, number: int, load_from: str, samples: int) -> dict[str, Any]:
        """Do a round after all earlier ones, and return its figures."""
        place, earlier = f"round-{number}", self._model("round", number - 1, load_from)
        counts = self._write(place, number, earlier, samples)
        counts |= self._send(place, number)
        trained = self._train(place, number, self.file.dataset, earlier)
        return {"round": number, **counts, **trained, **self._measure(place, str(self.files.path(f"{place}/model")))}

    def control(self, number: int, load_from: str) -> dict[str, Any]:
        """Train as long as round `number` did, on rows that no expert wrote, and return the figures."""
        place, earlier = f"control-{number}", self._model("control", number - 1, load_from)
        condition = "origin IS NULL"
        if self.file.dataset.where is not None:
            condition = f"({self.file.dataset.where}\n) AND {condition}"
        dataset = self.file.dataset.model_copy(update={"where": condition})
        trained = self._train(place, number, dataset, earlier)
        return {"round": number, **trained, **self._measure(place, str(self.files.path(f"{place}/model")))}

    def _model(self, kind: str, number: int, load_from: str) -> str:
        return load_from if number == 0 else str(self.files.path(f"{kind}-{number}/model"))

    def _write(self, place: str, number: int, model: str, samples: int) -> dict[str, Any]:
        """Let a model complete the training prompts, judge the completions, and keep the good ones."""
        from consumers.expert_iteration.completions import figures
        from consumers.expert_iteration.experts import expert_document

        asked = [each for each in self.training for _ in range(samples)]
        # Another round draws other completions.
        sampling = replace(self.sampling, seed=self.sampling.seed + number)
        texts, verdicts = self._judged(f"{place}/written", f"round {number}", model, asked, sampling)

        def keep() -> Iterator[Mapping[str, Any]]:
            for prompt, text, verdict in zip(asked, texts, verdicts, strict=True):
                if verdict["left_out"] is None:
                    yield expert_document(prompt, text, sum(verdict[self.judging.linter].values()))

        kept = self.files.rows_once(f"{place}/kept.jsonl", keep)
        reasons = Counter(verdict["left_out"] for verdict in verdicts if verdict["left_out"] is not None)
        return {
            "written": figures(verdicts, self.judging.linter),
            "kept": len(kept),
            "left_out": dict(reasons.most_common()),
        }

    def _send(self, place: str, number: int) -> dict[str, Any]:
        """Send the kept documents to the topic, and wait until they are refined."""
        from consumers.train_rows import count_rows
        from producers.sink import send_frames
        from producers.source_code.documents import document_rows
        from schema.source_code import FAMILY
        from schema.source_code.columns import EXPERT
        from streams.drain import drain

        def on_clean() -> int:
            condition = {"other": f"coalesce(origin, '') = '{EXPERT}'"}
            return count_rows(self.connection, FAMILY, condition, "kind").passed

        def make() -> dict[str, Any]:
            kept = self.files.rows_once(f"{place}/kept.jsonl", list)
            before = self.files.once(f"{place}/before.json", lambda: {"experts": on_clean()})["experts"]
            if kept:
                send_frames(self.connection, FAMILY, f"expert-round-{number}", [document_rows(kept)])
            with progress(f"round {number}: refining", len(kept), "rows", quiet=self.quiet):
                drain(self.connection, FAMILY.name, _DRAIN_WITHIN_S)
            return {"sent": len(kept), "new_on_clean": on_clean() - before}

        return self.files.once(f"{place}/sent.json", make)

    def _train(self, place: str, number: int, dataset: DatasetPart, earlier: str) -> dict[str, Any]:
        """Train in a process of its own, on other documents in each round, and return the losses.

        Raises:
            TrainingError: the training failed.
        """
        from consumers.language_model.run_file import written
        from consumers.training.run_folder import newest_first

        def make() -> dict[str, Any]:
            model = self.files.path(f"{place}/model")
            config, printed, log = (
                self.files.path(f"{place}/{name}") for name in ("run.yml", "train.json", "train.log")
            )
            shuffled = dataset.model_copy(update={"shuffle_seed": dataset.shuffle_seed + number})
            config.write_text(written(self.file.model_copy(update={"dataset": shuffled})), encoding="utf-8")
            arguments = ["train", "code", "--out", str(model), "--json"]
            if newest_first(model):
                arguments += ["--resume", "--leave-out-retracted"]
            else:
                arguments += ["--config", str(config), "--load-from", earlier, "--replace"]
            with progress(f"{place}: training", None, quiet=self.quiet):
                status = run_child(arguments, printed, log)
            if status:
                raise TrainingError(f"the training of {place} failed: {last_line(log)} ({log})")
            report = json.loads(printed.read_text(encoding="utf-8"))
            return {name: report[name] for name in ("steps", "first_loss", "last_loss", "held_out_loss", "real_tokens")}

        return self.files.once(f"{place}/trained.json", make)

    def _measure(self, place: str, model: str) -> dict[str, Any]:
        """Let a model complete the held-out prompts, greedily, and return the figures."""
        from consumers.expert_iteration.completions import figures

        sampling = replace(self.sampling, temperature=0.0, top_p=1.0)
        _, verdicts = self._judged(f"{place}/held-out", f"{place}, held out", model, self.held_out, sampling)
        return figures(verdicts, self.judging.linter)

    def _judged(
        self, name: str, title: str, model: str, prompts: Sequence[FunctionPrompt], sampling: Sampling
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """Return the completions of prompts, and the verdict on each, with why it is not kept as `left_out`."""
        from consumers.expert_iteration.completions import complete, judged
        from consumers.expert_iteration.experts import left_out

        def write() -> Iterator[dict[str, Any]]:
            with progress(f"{title}: writing", len(prompts), "completions", quiet=self.quiet) as advance:
                texts = complete(model, prompts, sampling, advance)
            for prompt, text in zip(prompts, texts, strict=True):
                yield {"task_id": prompt.task_id, "prompt": prompt.prompt, "completion": text}

        texts = [row["completion"] for row in self.files.rows_once(f"{name}.jsonl", write)]

        def judge() -> Iterator[dict[str, Any]]:
            with progress(f"{title}: judging", len(prompts), "completions", quiet=self.quiet) as advance:
                found = list(judged(prompts, texts, self._counted(advance)))
            for (_, _, verdict), fault in zip(found, left_out(found, self.bounds), strict=True):
                yield {**verdict.as_json(self.judging.linter), "left_out": fault}

        return texts, self.files.rows_once(f"{name}-judged.jsonl", judge)

    def _counted(self, advance: OnAdvance) -> Judge:
        """Return the judge, which reports how many samples it has judged."""
        done = 0

        def judge(samples: Iterable[CodeSample]) -> Iterator[CodeVerdict]:
            nonlocal done
            for verdict in self.judging(samples):
                done += 1
                advance(done)
                yield verdict

        return judge
