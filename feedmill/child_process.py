"""A child service that ends with its parent: `python -m feedmill.child_process worker` runs `feedmill worker`.

The parent holds the write end of the child's standard input. However the parent ends, `kill -9` included, the pipe
closes, and the child ends itself as if told to by SIGTERM; at the latest after a minute, whatever it is at.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from feedmill.cli import main

# Longer than an orderly end takes, the slowest of which is a worker's.
_END_WITHIN_S = 60.0


def _end_with_parent() -> None:
    # Not sys.stdin, whose lock this thread would hold while the interpreter shuts down.
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
