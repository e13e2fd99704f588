"""Complete prompts with a language model: full models and adapters, in batches, greedy or sampled.

A tokenizer with a chat template gets a system prompt that asks for code alone, and the code is taken from the answer's
first fenced block. Any other model continues the prompt itself. A completion ends at the tokenizer's end token, at the
end of a fenced block, after the most tokens, or where the caller says that it is whole. Only the caller's settings
choose tokens, not generation_config.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from consumers.language_model.base_model import is_folder, load_base, local_folder
from consumers.language_model.quantization import Quantize
from consumers.language_model.saved_model import adapter_base, is_adapter, load_adapter
from consumers.training.checkpoint import unreadable
from consumers.training.run_folder import find_checkpoint
from schema.errors import CheckpointError, UsageError

SYSTEM_PROMPT = "You write code. Answer with one fenced block of code, and nothing else."
_FENCE_END = "\n```"
# Whether completions are whole is asked after this many tokens.
_ASKED_EVERY_TOKENS = 8
_BLOCK = re.compile(r"```[^\n]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_WHOLE_BLOCK = re.compile(r"```[^\n]*\n(?:.*?\n)?```", re.DOTALL)
# Logits divided by less may be no numbers.
_LEAST_TEMPERATURE = 0.01
_MOST_SEED = (1 << 63) - 1

# Where the completion of a prompt ends, as a place in its text; None if it goes on: (prompt, text) -> place.
EndOf = Callable[[str, str], int | None]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 takes the most likely token.
        top_p: tokens are drawn from the smallest set with this probability.
        seed: of the draws; the same prompts in the same batches give the same completions.
        max_new_tokens: the most tokens of a completion.
        batch_size: prompts that are completed together.

    Raises:
        UsageError: a value is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 512
    batch_size: int = 8

    def __post_init__(self) -> None:
        is_greedy = self.temperature == 0
        if not ((is_greedy or _LEAST_TEMPERATURE <= self.temperature <= 10) and 0 < self.top_p <= 1):
            raise UsageError(
                f"temperature {self.temperature} and top_p {self.top_p} are out of range: use 0 or "
                f"{_LEAST_TEMPERATURE} to 10, and above 0 to 1"
            )
        if not 0 <= self.seed <= _MOST_SEED:
            raise UsageError(f"seed {self.seed} is out of range: use 0 to {_MOST_SEED}")
        if self.max_new_tokens < 1 or self.batch_size < 1:
            raise UsageError("max_new_tokens and batch_size must be at least 1")


@dataclass(frozen=True)
class Completion:
    """The completion of a prompt; `finished` is False if it was cut after the most tokens."""

    prompt: str
    text: str
    finished: bool
    tokens: int


class Generator:
    """A model and its tokenizer, for completions.

    Args:
        place: a run's folder, a checkpoint, the folder of a full model or of an adapter, or a name in the local cache
            of Hugging Face.
        device: of the model; one in 4 bits is on the current GPU.
        quantize: load the model, or the base of an adapter, in 4 bits.

    Raises:
        CheckpointError, ConfigError, UsageError: the model or its tokenizer cannot be loaded.
    """

    def __init__(self, place: str, device: torch.device | None = None, quantize: Quantize | None = None) -> None:
        found = find_checkpoint(Path(place)) if is_folder(place) else local_folder(place)
        self._model: Any = _loaded(found, device or torch.device("cpu"), quantize).eval()
        self._model.generation_config = GenerationConfig()
        self._tokenizer = _tokenizer(found)
        self.found = found

    @property
    def chats(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self._tokenizer.chat_template is not None

    def complete(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        has_special_tokens: bool = False,
        end_of: EndOf | None = None,
        ends_at_fence: bool = True,
    ) -> Iterator[Completion]:
        """Yield the completion of each prompt, in order.

        Args:
            prompts: texts.
            sampling: how tokens are chosen.
            has_special_tokens: whether the text of a special token in a prompt is that token. As in training, it is not
                in code: a source file may hold the text `<|endoftext|>`.
            end_of: ends completions, of a model without a chat template.
            ends_at_fence: whether a completion ends with a fenced block; other texts may have several.

        Raises:
            UsageError: a prompt is empty, is no valid text, or leaves no room for a completion in the model's context.
                All prompts are looked at before the first completion.
            CheckpointError: the chat template cannot be used.
        """
        for number, prompt in enumerate(prompts, 1):
            self._check(prompt, number, has_special_tokens)
        if self.chats:
            end_of = _end_of_block if ends_at_fence else None
        torch.manual_seed(sampling.seed)
        for begin in range(0, len(prompts), sampling.batch_size):
            batch = prompts[begin : begin + sampling.batch_size]
            yield from self._batch(batch, sampling, has_special_tokens, end_of, ends_at_fence)

    @property
    def _context(self) -> int | None:
        context: int | None = getattr(self._model.config, "max_position_embeddings", None)
        return context

    def _check(self, prompt: str, number: int, has_special_tokens: bool) -> None:
        if not prompt:
            raise UsageError(f"prompt {number} is empty: give the beginning of a text")
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise UsageError(f"prompt {number} is no valid text, because it has half of a surrogate pair: correct it")
        length = len(self._encoded([prompt], has_special_tokens)["input_ids"][0])
        if not length:
            raise UsageError(f"prompt {number} has no tokens in this model's tokenizer: give the beginning of a text")
        if self._context is not None and length >= self._context:
            raise UsageError(
                f"prompt {number} has {length} tokens, but the model's context is {self._context}: shorten it, or take "
                "another model"
            )

    def _encoded(self, prompts: Sequence[str], has_special_tokens: bool, **options: Any) -> Any:
        return self._tokenizer(
            [self._asked(prompt) for prompt in prompts],
            split_special_tokens=not (has_special_tokens or self.chats),
            # A chat template writes its special tokens, that at the beginning included.
            add_special_tokens=not self.chats,
            **options,
        )

    def _batch(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        has_special_tokens: bool,
        end_of: EndOf | None,
        ends_at_fence: bool,
    ) -> Iterator[Completion]:
        inputs = self._encoded(prompts, has_special_tokens, return_tensors="pt", padding=True)
        inputs = {name: inputs[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        length, context = inputs["input_ids"].shape[1], self._context
        room = sampling.max_new_tokens if context is None else min(sampling.max_new_tokens, context - length)
        if room < sampling.max_new_tokens and not inputs["attention_mask"].all():
            # The longest prompt would cut the completions of the others.
            for prompt in prompts:
                yield from self._batch([prompt], sampling, has_special_tokens, end_of, ends_at_fence)
            return
        drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature:
            drawn = {
                "do_sample": True,
                "temperature": float(sampling.temperature),
                "top_p": float(sampling.top_p),
                "top_k": 0,
            }
        ends = StoppingCriteriaList()
        if end_of is not None:
            ends.append(_WholeCompletions(self._tokenizer, prompts, length, end_of))
        # A chat model may write words before its block, so the first fence is no end.
        stops_at_fence = ends_at_fence and not self.chats
        with torch.inference_mode():
            made = self._model.generate(
                **inputs,
                **drawn,
                max_new_tokens=room,
                stop_strings=[_FENCE_END] if stops_at_fence else None,
                stopping_criteria=ends,
                tokenizer=self._tokenizer,
                eos_token_id=self._tokenizer.eos_token_id,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        for prompt, tokens in zip(prompts, made[:, length:].tolist(), strict=True):
            ended = self._tokenizer.eos_token_id in tokens
            kept = tokens[: tokens.index(self._tokenizer.eos_token_id)] if ended else tokens
            text = self._tokenizer.decode(kept, skip_special_tokens=True)
            fenced = stops_at_fence and _FENCE_END in text
            text = text.partition(_FENCE_END)[0] + "\n" if fenced else text
            end = None if end_of is None else end_of(prompt, text)
            text = code_of(text) if self.chats and ends_at_fence else text[:end]
            yield Completion(prompt, text, ended or fenced or end is not None, len(kept))

    def _asked(self, prompt: str) -> str:
        """Return the text that the model continues; a template without a system's part has it in the user's.

        Raises:
            CheckpointError: the template cannot be used.
        """
        if not self.chats:
            return prompt
        system, user = {"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": prompt}
        both = {"role": "user", "content": f"{SYSTEM_PROMPT}\n\n{prompt}"}
        asked: str
        for messages in ([system, user], [both]):
            try:
                asked = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
                return asked
            except Exception as error:
                # A template is a program, which raises errors of many classes.
                failure = error
        raise CheckpointError(
            f"the chat template of {self.found} cannot be used ({failure}): correct chat_template, or remove it"
        ) from failure


class _WholeCompletions(StoppingCriteria):  # type: ignore[misc]  # transformers has no types
    """Ends the completions of a batch that are whole.

    Args:
        tokenizer: decodes them.
        prompts: of the batch.
        length: tokens of each prompt, padding included.
        end_of: says where a completion ends.
    """

    def __init__(self, tokenizer: Any, prompts: Sequence[str], length: int, end_of: EndOf) -> None:
        self._tokenizer, self._prompts, self._length, self._end_of = tokenizer, prompts, length, end_of
        self._whole = [False] * len(prompts)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> Any:
        """Return which completions end here (B,), given all tokens so far (B, T)."""
        if (input_ids.shape[1] - self._length) % _ASKED_EVERY_TOKENS == 0:
            for row, tokens in enumerate(input_ids[:, self._length :].tolist()):
                if not self._whole[row]:
                    text = self._tokenizer.decode(tokens, skip_special_tokens=True)
                    self._whole[row] = self._end_of(self._prompts[row], text) is not None
        return torch.tensor(self._whole, device=input_ids.device)


def _end_of_block(_: str, answer: str) -> int | None:
    """Return where the first fenced block of a chat model's answer ends."""
    block = _WHOLE_BLOCK.search(answer)
    return None if block is None else block.end()


def code_of(answer: str) -> str:
    """Return the code of a chat model's answer: its first fenced block, or all of it.

    >>> code_of("Here it is:\\n```rust\\nfn main() {}\\n```\\nDone.")
    'fn main() {}\\n'
    """
    block = _BLOCK.search(answer)
    return answer if block is None else block[1] + "\n"


def _loaded(place: Path, device: torch.device, quantize: Quantize | None) -> Any:
    """Return a model; an adapter is merged into its base, but not into one in 4 bits, which would round it."""
    if quantize is None:
        return load_base(str(place)).to(device)
    if is_adapter(place):
        return load_adapter(load_base(adapter_base(place), quantize), place)
    return load_base(str(place), quantize)


def _tokenizer(place: Path) -> Any:
    """Return a tokenizer that pads on the left, so that every prompt ends where its completion begins.

    Raises:
        CheckpointError: there is none, or it has no end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            place, local_files_only=True, trust_remote_code=False, padding_side="left"
        )
    except Exception as error:
        # The library raises errors of many classes.
        raise unreadable(place, error) from error
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"the tokenizer of {place} has no end token (eos_token): take another model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
