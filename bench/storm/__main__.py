"""Runs a storm and keeps its logs, to look into a fault: `python -m bench.storm MINUTES SEED FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.storm.run import run


def _print_note(done_s: float, note: str) -> None:
    print(f"{done_s:6.1f} s  {note}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(run(float(sys.argv[1]), int(sys.argv[2]), _print_note, Path(sys.argv[3])), indent=1))
