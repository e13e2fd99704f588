"""The entry point of the `feedmill` command, which Ctrl-C can stop while the modules are still being imported."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Run the `feedmill` command and exit with its status."""
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    if on_ctrl_c is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    # The import takes seconds on a busy machine.
    from feedmill import cli

    signal.signal(signal.SIGINT, on_ctrl_c)
    cli.main()


def _stop(number: int, frame: FrameType | None) -> None:
    # Not KeyboardInterrupt: libraries replace it by errors of their own while they are imported.
    os.write(2, b"feedmill: stopped\n")
    os._exit(128 + number)
