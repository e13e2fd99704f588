"""The commands `feedmill broker start|stop|status` and `feedmill topics`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from schema.settings import Settings, load_settings

if TYPE_CHECKING:
    from broker.embedded import BrokerStatus

app = typer.Typer(help="Start, stop or show the embedded Kafka of this folder.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

_MB = 1e6


@app.command("start")
def start_command(as_json: AsJson = False) -> None:
    """Start the embedded Kafka; it runs until `feedmill broker stop`. The first start downloads it."""
    from broker import embedded

    settings = load_settings()
    _show(embedded.start(settings, on_progress=_print_note), as_json)
    _warn_of_another(settings)


@app.command("stop")
def stop_command(as_json: AsJson = False) -> None:
    """Stop the embedded Kafka; its data are kept."""
    from broker import embedded

    settings = load_settings()
    stopped = embedded.stop(settings)
    if as_json:
        print(json.dumps({"stopped": stopped}))
    else:
        print("stopped; its data are kept" if stopped else "was not running")


@app.command("status")
def status_command(as_json: AsJson = False) -> None:
    """Show whether the embedded Kafka runs, and where its data and its log are. The exit status is 0 in both cases."""
    from broker import embedded

    settings = load_settings()
    _show(embedded.status(settings), as_json)
    _warn_of_another(settings)


def topics_command(as_json: AsJson = False) -> None:
    """List the topics of this namespace, with their partitions and readable offsets."""
    from broker.clients import connect
    from broker.topics import extents, list_topics

    settings = load_settings()
    connection = connect(settings, on_progress=_print_note)
    topics = {name: extents(connection, name) for name in list_topics(connection)}
    if as_json:
        partitions = {name: {str(number): asdict(one) for number, one in each.items()} for name, each in topics.items()}
        print(json.dumps({"servers": connection.servers, "namespace": settings.namespace, "topics": partitions}))
        return
    if not topics:
        print(f"no topics in namespace {settings.namespace} at {connection.servers}: `feedmill up` creates them")
        return
    table = Table(caption="offsets count records and transaction markers")
    for name in ("topic", "partitions", "first offset", "offsets"):
        table.add_column(name, justify="left" if name == "topic" else "right")
    for name, each in topics.items():
        first = min(one.begin for one in each.values())
        table.add_row(name, str(len(each)), f"{first:,}", f"{sum(one.end - one.begin for one in each.values()):,}")
    Console().print(table)


def _show(status: BrokerStatus, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_plain(status)))
    elif not status.running:
        print(f"not running; start it with `feedmill broker start` (Kafka {status.version}, data: {status.data_dir})")
    else:
        uptime_s, rss_bytes = status.uptime_s or 0.0, status.rss_bytes or 0
        size = f"{rss_bytes / _MB:.0f} MB"
        print(f"Kafka {status.version} at {status.servers}, pid {status.pid}, up {uptime_s:.0f} s, {size}")
        print(f"data: {status.data_dir}")
        print(f"log:  {status.log_file}")


def _plain(status: BrokerStatus) -> dict[str, Any]:
    return {**asdict(status), "data_dir": str(status.data_dir), "log_file": str(status.log_file)}


def _warn_of_another(settings: Settings) -> None:
    if settings.bootstrap_servers is not None:
        _print_note(f"FEEDMILL_BOOTSTRAP_SERVERS is set: other commands use the Kafka at {settings.bootstrap_servers}")


def _print_note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
