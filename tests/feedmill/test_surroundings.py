"""Every command in hostile surroundings: no traceback, no internal error, and a meaningful exit status.

Commands run in forks of one process that has imported the command line, so that a run costs no second import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from feedmill.cli import app

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

# Reads lines of stdin, stdout, log file and command line; runs each command in a fork and prints its status.
RUNNER = """
import contextlib, io, os, shlex, signal, sys
import feedmill.cli as cli, warnings
with warnings.catch_warnings():
    # Imported once for all forks; each command has strict warnings of its own.
    warnings.simplefilter("ignore")
    import broker.topics, consumers.replay.topic_range, consumers.compare.comparison, producers.reduction.run
    import producers.scenario.run, producers.ingest, streams.drain, streams.coverage.service, streams.worker
    with contextlib.redirect_stdout(io.StringIO()):
        cli.run(["bench", "--help"])
for line in sys.stdin:
    stdin, stdout, log, *arguments = shlex.split(line)
    child = os.fork()
    if not child:
        signal.alarm(120)
        os.close(0)
        if stdin != "closed":
            os.open(stdin, os.O_RDONLY)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.close(1)
        if stdout == "closed":
            sys.stdout = None
        else:
            os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding=sys.stdout.encoding)
        if stdin == "closed":
            sys.stdin = None
        status = 70
        try:
            cli.main(arguments)
        except SystemExit as end:
            status = end.code
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def commands(group: typer.core.TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = sorted(commands(typer.main.get_command(app)))


def hostile(**changes: str) -> dict[str, str]:
    """Return an environment for a runner: no variables of the user, and a broker that does not exist."""
    return {
        "PATH": os.environ["PATH"],
        "FEEDMILL_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "FEEDMILL_BROKER_TIMEOUT_S": "0.2",
        "COLUMNS": "100",
        **changes,
    }


class Runner:
    """A process that has imported the command line, in its own folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )

    def __call__(self, *arguments: str, stdin: str = "/dev/null", stdout: str = "out") -> tuple[int, str, str]:
        """Run a command; (status, stdout, stderr)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, log = self._folder / "out", self._folder / "err"
        for file in (out, log):
            file.write_text("")
        self._process.stdin.write(" ".join((stdin, stdout, str(log), *arguments)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            pytest.fail(self._process.communicate()[1])
        return int(answer), out.read_text(errors="replace"), log.read_text(errors="replace")

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A runner with an ASCII terminal, an impossible home (even for root), and warnings as errors."""
    environment = hostile(
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        PYTHONIOENCODING="ascii",
        HOME="/dev/null",
        XDG_CACHE_HOME="/dev/null",
        PYTHONWARNINGS="error",
    )
    hostile_runner = Runner(tmp_path_factory.mktemp("hostile"), environment)
    yield hostile_runner
    hostile_runner.close()


def check(result: tuple[int, str, str], statuses: tuple[int, ...] = (0, 1, 2)) -> None:
    status, out, err = result
    assert "Traceback" not in out + err, err
    assert "an error in Feedmill" not in err
    assert "Warning" not in err
    assert status in statuses, (status, err)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_its_help_anywhere(runner: Runner, command: tuple[str, ...]) -> None:
    result = runner(*command, "--help")
    check(result, (0,))
    assert "Usage" in result[1]
    check(runner(*command, "--help", stdout="/dev/full"), (1,))
    check(runner(*command, "--help", stdout="closed", stdin="closed"), (0,))


# Arguments with which each command gets as far as it can without a broker.
ARGUMENTS = {
    ("ingest",): ["reduction", "-"],
    ("worker",): ["reduction"],
    ("produce", "reduction"): ["--count", "30", "--seed", "1", "--workers", "1", "--out", "r.jsonl"],
    ("produce", "scenario"): ["--count", "30", "--seed", "1", "--out", "s.jsonl"],
    ("coverage", "report"): ["reduction"],
    ("coverage", "gaps"): ["reduction", "--json"],
    ("coverage", "rebuild"): [],
    ("drain",): ["reduction", "--timeout", "1"],
    ("audit",): ["reduction"],
    ("replay",): ["reduction", "--out", "x.jsonl"],
    ("redrive",): ["reduction"],
    ("compare",): ["r.jsonl", "r.jsonl", "--family", "reduction"],
    ("watch",): ["--once"],
    ("train", "reduction"): ["--out", "run"],
    ("eval", "reduction"): ["--model", "absent"],
    ("bench",): ["nothing"],
    # With valid arguments, these commands would download, start or serve without end.
    ("up",): ["--workers", "0"],
    ("demo",): ["--nothing"],
    ("coverage", "serve"): ["--nothing"],
    ("broker", "start"): ["--nothing"],
}


def test_strict_warnings_stop_no_first_import(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "feedmill", "topics"],
        env=hostile(PYTHONWARNINGS="error", PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    check((done.returncode, done.stdout, done.stderr), (1,))
    assert "127.0.0.1:1" in done.stderr


def test_strict_warnings_stop_no_import_of_the_public_names() -> None:
    code = "import feedmill\nfor name in feedmill.__all__: getattr(feedmill, name)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [each for each in COMMANDS if each], ids=" ".join)
def test_every_command_ends_in_a_line_and_not_in_a_traceback(runner: Runner, command: tuple[str, ...]) -> None:
    arguments = [*command, *ARGUMENTS.get(command, [])]
    check(runner(*arguments))
    if command[0] not in ("train", "eval"):
        # These import torch, half a minute on a busy machine, and print nothing before they have a broker.
        check(runner(*arguments, stdout="/dev/full", stdin="closed"))
