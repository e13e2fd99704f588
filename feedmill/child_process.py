"""Runs a command that ends with its parent: `python -m feedmill.child_process worker` runs `feedmill worker`.

The parent holds the write end of the child's standard input. When the parent ends, even by `kill -9`, the pipe closes.
The child then sends itself SIGTERM, and exits after 60 s if it still runs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from feedmill.cli import main

# An orderly end takes less; a worker's takes the longest.
_END_WITHIN_S = 60.0


def _end_with_parent() -> None:
    # Not sys.stdin: this thread would hold its lock while the interpreter shuts down.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_WITHIN_S)
    os._exit(128 + signal.SIGTERM)


def run(arguments: list[str]) -> None:
    """Run one `feedmill` command that ends with this process' standard input, and exit with its status."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main(arguments)


if __name__ == "__main__":
    run(sys.argv[1:])
