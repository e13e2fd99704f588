"""The `feedmill` command line: its commands, its error lines and its exit statuses.

Exit status: 0 done; 1 failed; 2 wrong usage; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP. A service that a
signal stops exits with 0 (`feedmill.signals`). An error is one line: the cause, and how to fix it. `--debug` shows the
traceback.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Annotated

import typer

from feedmill import broker_commands, coverage_commands, service_commands, signals, tokenizer_commands
from feedmill.audit_command import audit_command
from feedmill.bench_commands import bench_command
from feedmill.compare_command import compare_command
from feedmill.demo import demo_command
from feedmill.doctor import doctor_command
from feedmill.family_commands import FamilyCommands
from feedmill.forget_command import forget_command
from feedmill.ingest_command import ingest_command
from feedmill.iterate_command import iterate_command
from feedmill.redrive_command import redrive_command
from feedmill.replay_commands import replay_command
from feedmill.skip_command import skip_command
from feedmill.surroundings import broken_output, full_line, is_full, prepare
from feedmill.sweep_command import sweep_command
from feedmill.watch import watch_command
from schema.errors import FeedmillError

# Typer returns this status for an interrupted command.
_INTERRUPTED = 130

app = typer.Typer(
    name="feedmill",
    help="A stream-processing data service for machine-learning training data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _family_commands(help_text: str) -> typer.Typer:
    """Return a group of commands that families declare; it finds them by the name under which it is added."""
    return typer.Typer(help=help_text, no_args_is_help=True, cls=FamilyCommands)


app.command("up")(service_commands.up_command)
app.command("demo")(demo_command)
app.command("doctor")(doctor_command)
app.command("topics")(broker_commands.topics_command)
app.add_typer(broker_commands.app, name="broker")
app.add_typer(_family_commands("Generate examples into a raw topic, or into a file with --out."), name="produce")
app.command("ingest")(ingest_command)
app.command("worker")(service_commands.worker_command)
app.add_typer(coverage_commands.app, name="coverage")
app.command("audit")(audit_command)
app.command("drain")(coverage_commands.drain_command)
app.command("replay")(replay_command)
app.command("redrive")(redrive_command)
app.command("forget")(forget_command)
app.command("skip")(skip_command)
app.command("compare")(compare_command)
app.command("watch")(watch_command)
app.add_typer(_family_commands("Train a model from a clean topic."), name="train")
app.add_typer(_family_commands("Complete prompts with a trained model."), name="generate")
app.add_typer(
    _family_commands("Evaluate a model on new examples, or generated code by compiler and tests."), name="eval"
)
app.add_typer(tokenizer_commands.app, name="tokenizer")
app.command("iterate")(iterate_command)
app.command("sweep")(sweep_command)
app.command("bench")(bench_command)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the Kafka clients' log lines.")] = False,
) -> None:
    # The clients also log failures that they retry by themselves. Users need only the other ones.
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR, format="%(name)s: %(message)s")
    for name in ("schema", "streams", "producers", "consumers"):
        # These warnings name skipped records, so they are always shown.
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)
    if not debug:
        for name in ("kafka", "aiokafka", "faust", "mode"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    prepare()
    signals.install()
    arguments = sys.argv[1:] if arguments is None else arguments
    status = run(arguments)
    broken = broken_output()
    signals.forget_interrupt()
    sys.exit(_output_status(broken) if broken is not None and not status else status)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status; an error is one line on stderr."""
    try:
        status = app(args=arguments, prog_name="feedmill", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "feedmill"
        message = error.format_message().rstrip(".")
        # Without a message, Typer has shown the help.
        return _report(f"{message}: see `{path} --help`", error.exit_code) if message else error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        signals.end_by_interrupt()
        return _report("stopped", signals.interrupted_status())
    except FeedmillError as error:
        if "--debug" in arguments:
            raise
        # A command that stops in order raises an error with Ctrl-C's status, whichever signal it received.
        interrupted = error.exit_status == _INTERRUPTED
        return _report(str(error), signals.interrupted_status() if interrupted else error.exit_status)
    except Exception as error:
        if "--debug" in arguments:
            raise
        return _unforeseen(error)
    # Typer ends some interrupted commands by itself, and prints nothing.
    if status == _INTERRUPTED:
        return _report("stopped", signals.interrupted_status())
    return status if isinstance(status, int) else 0


def _unforeseen(error: Exception) -> int:
    """Report an error that is no `FeedmillError`, and return the exit status."""
    broken = broken_output() if isinstance(error, OSError) else None
    if broken is not None:
        return _output_status(broken)
    if signals.received_stop():
        # A library may raise its own error in place of the interrupt.
        return _report(f"stopped ({type(error).__name__})", signals.interrupted_status())
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return _report("out of memory: give the command more (see `ulimit -v`), or end other programs", 1)
    if isinstance(error, OSError) and is_full(error):
        return _report(full_line(error), 1)
    line = str(error).partition("\n")[0]
    return _report(f"{type(error).__name__}: {line} - an error in Feedmill; run again with --debug and report it", 1)


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether torch found no memory on the CPU or a GPU; its errors are no `MemoryError`."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _output_status(error: OSError) -> int:
    """Report why standard output could not be written, and return the exit status."""
    if isinstance(error, BrokenPipeError):
        # The reader closed the pipe on purpose (`| head`): no failure.
        return 0
    return _report(f"standard output cannot be written ({error.strerror}): redirect it to a disk with free space", 1)


def _report(line: str, status: int) -> int:
    # If stderr cannot be written either, only the status can report the error.
    with suppress(OSError):
        print(f"feedmill: {' '.join(line.split())}", file=sys.stderr, flush=True)
    return status
