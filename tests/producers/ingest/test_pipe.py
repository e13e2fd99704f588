"""The command `feedmill ingest` on real pipes: rows are sent soon after they arrive, and a signal loses none."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.clients import Connection
from broker.topics import ensure_topics
from schema.source_lines import parse_line_ranges
from tests.producers.test_sink import read_raw

# Generous, because a busy machine is many times slower than an idle one.
SOON_S = 60.0


@contextmanager
def ingesting(connection: Connection, file: str = "-") -> Iterator[subprocess.Popen[bytes]]:
    ensure_topics(connection, ["reduction"])
    process = subprocess.Popen(
        [sys.executable, "-m", "feedmill", "ingest", "reduction", file],
        env=connection.settings.environment(connection.servers),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_in_raw(connection: Connection) -> list[bytes]:
    return sorted(line for record in read_raw(connection) for line in record.value.split(b"\n"))


def wait_for(connection: Connection, lines: list[bytes]) -> None:
    deadline = time.monotonic() + SOON_S
    while lines_in_raw(connection) != sorted(lines):
        assert time.monotonic() < deadline, lines_in_raw(connection)
        time.sleep(0.1)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    assert process.stderr is not None
    return process.wait(SOON_S), process.stderr.read().decode()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_line_is_sent_while_its_pipe_stays_open_and_a_signal_loses_none(
    connection: Connection, number: signal.Signals, status: int
) -> None:
    with ingesting(connection) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"a": 1}\n')
        process.stdin.flush()
        wait_for(connection, [b'{"a": 1}'])
        rest = [b'{"b": %d}' % row for row in range(3000)]
        process.stdin.write(b"\r\n".join(rest) + b'\n{"unfinished"')
        process.stdin.flush()
        # Sent at once, while most of the rows still wait in the pipe.
        process.send_signal(number)
        exit_status, message = ended(process)
    assert lines_in_raw(connection) == sorted([b'{"a": 1}', *rest])
    assert (exit_status, message.count("\n")) == (status, 1)
    assert f"stopped by {number.name}: the 3,001 rows read of standard input were sent" in message
    numbers = [
        row
        for record in read_raw(connection)
        for row in parse_line_ranges(dict(record.headers)["feedmill-lines"].decode(), record.value.count(b"\n") + 1)
        or ()
    ]
    assert sorted(numbers) == list(range(1, 3002))


def test_the_rows_of_a_killed_writer_are_sent(connection: Connection, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ingesting(connection, str(fifo)) as process:
        writer = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"f = open({str(fifo)!r}, 'w'); print('{{}}', file=f, end='\\n[1', flush=True); input()",
            ],
            stdin=subprocess.PIPE,
        )
        wait_for(connection, [b"{}"])
        writer.kill()
        writer.communicate()
        assert ended(process) == (0, f"2 rows -> {connection.settings.namespace}.reduction.raw\n")
    # The last line is cut off but still becomes a row, and the refine stage rejects it with its line number.
    records = read_raw(connection)
    assert sorted(record.value for record in records) == [b"[1", b"{}"]
    headers = [dict(record.headers) for record in records]
    assert {header["feedmill-source-file"] for header in headers} == {b"fifo"}
    assert sorted(header["feedmill-lines"] for header in headers) == [b"1", b"2"]


def test_compressed_lines_are_sent_while_their_pipe_stays_open(connection: Connection) -> None:
    with ingesting(connection) as process:
        assert process.stdin is not None
        for end in (1, 2):
            # Each write is its own gzip member, as `pigz` and log rotation produce.
            process.stdin.write(gzip.compress(b'{"a": %d}\n' % end))
            process.stdin.flush()
            wait_for(connection, [b'{"a": %d}' % row for row in range(1, end + 1)])
        process.communicate(timeout=SOON_S)
        assert process.returncode == 0


def test_a_closed_standard_input_is_reported_in_one_line(connection: Connection) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m feedmill ingest reduction - <&-"],
        env=connection.settings.environment(connection.servers),
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "standard input is closed" in done.stderr
