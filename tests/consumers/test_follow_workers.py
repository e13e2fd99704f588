"""Loader workers that follow a growing topic: every row once across any stop, prompt last batches, no orphan worker."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from broker.clients import Connection
from consumers.feed import Feed, FeedOptions
from schema.errors import FeedError
from tests import reductions
from tests.consumers.records import envelope, send, write

# torch warns about a third worker on a machine of two cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

COUNT = 400
AT_FIRST = 120


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    """Rows; the first `AT_FIRST` are in the topic."""
    all_rows = reductions.valid(COUNT)
    write(connection, all_rows[:AT_FIRST])
    return all_rows


@contextmanager
def trickle(connection: Connection, rows: pl.DataFrame, seed: int) -> Iterator[None]:
    """Write the other rows, a few at a time, while the block runs."""
    chance = random.Random(seed)

    def grow() -> None:
        behind = AT_FIRST
        while behind < COUNT:
            few = chance.randint(1, 60)
            write(connection, rows[behind : behind + few])
            behind += few
            time.sleep(chance.random() / 4)

    writer = threading.Thread(target=grow)
    writer.start()
    yield
    writer.join()


def following(connection: Connection, state: dict[str, Any] | None = None) -> Feed:
    options = FeedOptions(linger_s=0.1, window_rows=64, bucket=True)
    feed = Feed(connection, "reduction", split=None, batch_size=8, mode="follow", shuffle_seed=5, options=options)
    if state is not None:
        feed.load_state_dict(state)
    return feed


@pytest.mark.parametrize("seed", [0, 1])
def test_every_row_comes_once_for_any_stop_and_number_of_workers(
    connection: Connection, rows: pl.DataFrame, seed: int
) -> None:
    chance = random.Random(seed)
    seen: list[str] = []
    state = None
    with trickle(connection, rows, seed):
        for workers in chance.sample([0, 2, 3], 3):
            loader = following(connection, state).loader(workers)
            batches = iter(loader)
            for _ in range(chance.randint(1, 12)):
                seen += next(batches).hex_ids
            state = json.loads(json.dumps(loader.state_dict()))
            batches.close()  # type: ignore[attr-defined]
        batches = iter(following(connection, state).loader(chance.choice([0, 2, 3])))
        while len(seen) < COUNT:
            seen += next(batches).hex_ids
        batches.close()  # type: ignore[attr-defined]
    assert sorted(seen) == sorted(f"{number:016x}" for number in rows["example_id"])


def test_workers_give_the_batches_of_a_lone_follower_and_the_last_ones_at_once(
    connection: Connection, rows: pl.DataFrame
) -> None:
    alone = [batch.hex_ids for batch in itertools.islice(following(connection), AT_FIRST // 8)]
    batches = iter(following(connection).loader(workers=3))
    assert [next(batches).hex_ids for _ in alone] == alone
    # One more batch, and then another: each is one worker's turn, and the others have no batch.
    for first in (AT_FIRST, AT_FIRST + 8):
        write(connection, rows[first : first + 8])
        written = time.monotonic()
        assert len(next(batches)) == 8
        assert time.monotonic() - written < 4
    batches.close()  # type: ignore[attr-defined]


def test_an_error_of_a_worker_is_one_line(connection: Connection, rows: pl.DataFrame) -> None:
    frame = rows[:3]
    send(connection, b"no arrow stream", envelope(frame), partition=1)
    for mode in ("snapshot", "follow"):
        feed = Feed(connection, "reduction", split=None, batch_size=8, mode=mode)  # type: ignore[arg-type]
        with pytest.raises(FeedError, match=r"^\S+clean/1 offset \d+ cannot be decoded \(garbage") as caught:
            list(feed.loader(workers=2))
        assert "\n" not in str(caught.value)


TRAINER = """
import multiprocessing, sys
from pathlib import Path
from consumers.feed import Feed
from schema.settings import load_settings

if __name__ == "__main__":
    namespace, servers, folder = sys.argv[1:]
    settings = load_settings(namespace=namespace, bootstrap_servers=servers, data_dir=Path(folder))
    begun = []
    for mode in ("snapshot", "follow"):
        feed = Feed(settings, "reduction", split=None, batch_size=8, mode=mode)
        begun.append(iter(feed.loader(workers=2)))
        next(begun[-1])
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    sys.stdin.read()
"""


def test_no_worker_outlives_a_killed_trainer(connection: Connection, rows: pl.DataFrame, tmp_path: Path) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    trainer = subprocess.Popen(
        [sys.executable, script, connection.settings.namespace, connection.servers, tmp_path / "data"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert trainer.stdout is not None
    workers = [int(number) for number in trainer.stdout.readline().split()]
    assert len(workers) == 4
    # Until then the workers have made their batches ahead, and wait.
    time.sleep(1)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    deadline = time.monotonic() + 5
    while left := [number for number in workers if alive(number)]:
        assert time.monotonic() < deadline, f"workers {left} are still there"
        time.sleep(0.05)
    trainer.communicate()


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
