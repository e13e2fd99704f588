"""The child process of `isolated_marks`: reads documents on its standard input, and answers with their marks.

`python -m schema.source_code.marks_process`; it ends with its standard input.
"""

from __future__ import annotations

import os
import resource
import signal
from typing import IO

from schema.source_code.grammar import LANGUAGES
from schema.source_code.isolated_marks import ANSWER, ASKED, LIMIT_CPU_S, READY, read_whole
from schema.source_code.syntax_marks import marks_of


def answer_until_the_end(asked: IO[bytes], answers: IO[bytes]) -> None:
    """Answer with the marks of each source that is asked for; return at the end of `asked`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # They are meant for the parent, which still needs answers while it stops.
        signal.signal(number, signal.SIG_IGN)
    answers.write(READY)
    while True:
        try:
            language, size = ASKED.unpack(read_whole(asked, ASKED.size))
            source = read_whole(asked, size)
        except EOFError:
            return
        _limit_cpu()
        try:
            answers.write(ANSWER.pack(*marks_of(source, LANGUAGES[language])))
        except BrokenPipeError:
            return


def _limit_cpu() -> None:
    """Let the system end this process if it takes `LIMIT_CPU_S` more seconds of CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + LIMIT_CPU_S
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if most == resource.RLIM_INFINITY else min(soft, most), most))


if __name__ == "__main__":
    answer_until_the_end(os.fdopen(0, "rb", buffering=0), os.fdopen(1, "wb", buffering=0))
