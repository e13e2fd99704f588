"""The README.md of a finished run: what the model is, what it learned from, how good it is, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consumers.language_model.saved_model import ADAPTER, adapter_base
from consumers.train_rows import RowCounts
from consumers.training.checkpoint import REPORT, read_json

NAME = "README.md"
_FIGURES = ("steps", "rows", "real_tokens", "first_loss", "last_loss", "held_out_loss", "perplexity", "right_tokens")


def write_model_card(out: Path, family: str, run_file: str, counts: RowCounts) -> None:
    """Write the card into a finished run's folder.

    Args:
        out: the folder, with training.json.
        family: code or scenario.
        run_file: the text of the run file.
        counts: the rows of the split train, and those that passed the run's filters.

    Raises:
        CheckpointError: training.json cannot be read.
        OSError: the card cannot be written.
    """
    (out / NAME).write_text(card(read_json(out, REPORT), family, run_file, counts, _base(out)), encoding="utf-8")


def _base(out: Path) -> str | None:
    return adapter_base(out) if (out / ADAPTER).is_file() else None


def card(report: Mapping[str, Any], family: str, run_file: str, counts: RowCounts, base: str | None) -> str:
    """Return the card's Markdown; `base` is the model that an adapter belongs to."""
    kinds = "\n".join(f"| {kind} | {count:,} |" for kind, count in counts.kinds.items())
    figures = "\n".join(f"| {name} | {_shown(report[name])} |" for name in _FIGURES if report.get(name) is not None)
    offsets = json.dumps(report["offsets"])
    subject = {"code": "code", "scenario": "scenarios"}[family]
    what = f"A causal language model of {subject}"
    if base is not None:
        what = f"A LoRA adapter for {subject}, of the language model `{base}`"
    return f"""---
library_name: {"transformers" if base is None else "peft"}
pipeline_tag: text-generation
---

# {what}

Trained by `feedmill train {family}` ({report["feedmill"]}).

## Load it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
```

`feedmill generate {family} --model FOLDER` completes prompts with it.

## Data

The split train of {", ".join(f"`{topic}`" for topic in report["topics"])}, offsets {offsets}. The newest
manifest names every row that was seen: `feedmill replay {family} --manifest {report["checkpoint"]}/manifest.json`.

{counts}

| kind | rows |
|---|---|
{kinds}

## Results

Held-out sequences are of another split. Losses are in nats a token.

| figure | value |
|---|---|
{figures}

## Run file

```yaml
{run_file.strip()}
```
"""


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
