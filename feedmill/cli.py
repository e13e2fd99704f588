"""The command line: what it holds, and what its users see of an error.

Exit status: 0 done; 1 failed, with one line that says what and how to mend it; 2 wrong usage, with one line; 130 after
Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, but 0 for a service (`feedmill.signals`). `--debug` shows the traceback.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Annotated

import typer

from feedmill import broker_commands, coverage_commands, produce_commands, service_commands, signals
from feedmill.audit_command import audit_command
from feedmill.bench_commands import bench_command
from feedmill.compare_command import compare_command
from feedmill.demo import demo_command
from feedmill.doctor import doctor_command
from feedmill.eval_commands import eval_reduction_command
from feedmill.redrive_command import redrive_command
from feedmill.replay_commands import replay_command
from feedmill.skip_command import skip_command
from feedmill.surroundings import broken_output, full_line, is_full, prepare
from feedmill.train_commands import train_reduction_command
from feedmill.watch import watch_command
from schema.errors import FeedmillError

# What Typer returns for a command that was interrupted.
_INTERRUPTED = 130

app = typer.Typer(
    name="feedmill",
    help="A stream-processing data service for machine-learning training data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train = typer.Typer(help="Train a model from a clean topic.", no_args_is_help=True)
train.callback()(lambda: None)
train.command("reduction")(train_reduction_command)
evaluation = typer.Typer(help="Judge a model on examples it has never seen.", no_args_is_help=True)
evaluation.callback()(lambda: None)
evaluation.command("reduction")(eval_reduction_command)

app.command("up")(service_commands.up_command)
app.command("demo")(demo_command)
app.command("doctor")(doctor_command)
app.command("topics")(broker_commands.topics_command)
app.add_typer(broker_commands.app, name="broker")
app.add_typer(produce_commands.app, name="produce")
app.command("ingest")(produce_commands.ingest_command)
app.command("worker")(service_commands.worker_command)
app.add_typer(coverage_commands.app, name="coverage")
app.command("audit")(audit_command)
app.command("drain")(coverage_commands.drain_command)
app.command("replay")(replay_command)
app.command("redrive")(redrive_command)
app.command("skip")(skip_command)
app.command("compare")(compare_command)
app.command("watch")(watch_command)
app.add_typer(train, name="train")
app.add_typer(evaluation, name="eval")
app.command("bench")(bench_command)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the clients' own log lines.")] = False,
) -> None:
    # The clients log what they retry and recover from by themselves; their users need only what they cannot.
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR, format="%(name)s: %(message)s")
    for name in ("streams", "producers"):
        # What is passed over is never passed over unseen.
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
    sys.exit(_output_status(broken) if broken is not None and not status else status)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status; what went wrong is one line on stderr."""
    try:
        status = app(args=arguments, prog_name="feedmill", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "feedmill"
        told = error.format_message().rstrip(".")
        # Without a message the help has been shown instead.
        return _tell(f"{told}: see `{path} --help`", error.exit_code) if told else error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _tell("stopped", signals.interrupted_status())
    except FeedmillError as error:
        if "--debug" in arguments:
            raise
        # What a command ended in order by itself has Ctrl-C's status, whichever signal stood behind it.
        interrupted = error.exit_status == _INTERRUPTED
        return _tell(str(error), signals.interrupted_status() if interrupted else error.exit_status)
    except Exception as error:
        if "--debug" in arguments:
            raise
        return _unforeseen(error)
    # Typer ends an interrupted command by itself, with its status and without a word.
    if status == _INTERRUPTED:
        return _tell("stopped", signals.interrupted_status())
    return status if isinstance(status, int) else 0


def _unforeseen(error: Exception) -> int:
    """Say what ended a command that raised no error of ours, and return the status for that."""
    broken = broken_output() if isinstance(error, OSError) else None
    if broken is not None:
        return _output_status(broken)
    if signals.was_told_to_stop():
        # A library may put an error of its own in the place of an interrupt.
        return _tell(f"stopped ({type(error).__name__})", signals.interrupted_status())
    if isinstance(error, OSError) and is_full(error):
        return _tell(full_line(error), 1)
    line = str(error).partition("\n")[0]
    return _tell(f"{type(error).__name__}: {line} - an error in Feedmill; run again with --debug and report it", 1)


def _output_status(error: OSError) -> int:
    """Say why standard output could not be written, and return the status for that."""
    if isinstance(error, BrokenPipeError):
        # Whoever read it has seen enough (`| head`): there is nothing to say, and nobody to say it to.
        return 0
    return _tell(f"standard output cannot be written ({error.strerror}): send it where there is room", 1)


def _tell(line: str, status: int) -> int:
    # Nothing is left to do where not even this can be said.
    with suppress(OSError):
        print(f"feedmill: {' '.join(line.split())}", file=sys.stderr, flush=True)
    return status
