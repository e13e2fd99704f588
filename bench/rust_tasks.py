"""Small tasks in Rust in the form of HumanEval-X, with a right solution and wrong ones for each.

`rust_tasks.jsonl` has a task on each line. Its `mutants` are solutions that do not pass the tests: they give a wrong
result, panic, overflow, or do not compile.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TASKS = Path(__file__).with_name("rust_tasks.jsonl")


def solution_rows() -> list[tuple[dict[str, Any], bool]]:
    """Return a row of HumanEval-X for each solution, and whether the solution is right."""
    rows = []
    for line in TASKS.read_text(encoding="utf-8").splitlines():
        task = json.loads(line)
        mutants = task.pop("mutants")
        rows.append((task, True))
        rows += [
            ({**task, "task_id": f"{task['task_id']}/wrong-{number}", "generation": mutant}, False)
            for number, mutant in enumerate(mutants)
        ]
    return rows
