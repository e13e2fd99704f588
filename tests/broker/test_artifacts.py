"""Kafka's jars are pinned, checked at every start, and refused if they differ."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from broker import artifacts
from broker.artifacts import KAFKA_VERSION, check_versions, class_path, jar_cache, pinned_jars
from schema.errors import BrokerArtifactError
from schema.settings import load_settings


@pytest.fixture
def cache(broker: str, tmp_path: Path) -> Path:
    """A complete cache of this test's own: links to the user's cache, which `broker` has filled."""
    own = tmp_path / "cache"
    own.mkdir()
    for jar in pinned_jars():
        (own / jar.file_name).symlink_to(jar_cache(load_settings()) / jar.file_name)
    return own


def forge(path: Path) -> None:
    """Replace a link by a copy with one changed bit; the user's file is not changed."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_every_pinned_kafka_jar_has_the_same_version() -> None:
    kafka = [jar for jar in pinned_jars() if jar.group == "org.apache.kafka"]
    assert len(kafka) > 10
    assert {jar.version for jar in kafka} == {KAFKA_VERSION}


def test_mixed_kafka_versions_are_refused() -> None:
    with pytest.raises(BrokerArtifactError, match=r"kafka-clients has version 3\.9\.1"):
        check_versions([("org.apache.kafka", "kafka-clients", "3.9.1")])


def test_complete_cache_needs_neither_jgo_nor_network(cache: Path) -> None:
    program = (
        "import sys, socket; from pathlib import Path; from broker.artifacts import class_path\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        f"print(len(class_path(Path({str(cache)!r}))), 'jgo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(pinned_jars())), "False"]


def test_jar_with_another_hash_is_refused_and_named(cache: Path) -> None:
    forged = cache / f"kafka-clients-{KAFKA_VERSION}.jar"
    forge(forged)
    with pytest.raises(BrokerArtifactError, match="delete the file") as caught:
        class_path(cache)
    assert str(forged) in str(caught.value)


def test_missing_jar_is_fetched_and_checked(cache: Path) -> None:
    missing = cache / "jopt-simple-5.0.4.jar"
    missing.unlink()
    progress: list[str] = []
    assert missing in class_path(cache, progress.append)
    assert missing.is_file()
    assert progress
    assert [file.name for file in cache.iterdir() if file.name.startswith(".fetch-")] == []


def test_fetched_jar_that_is_not_the_pinned_one_never_enters_the_cache(cache: Path, tmp_path: Path) -> None:
    manifest = json.loads(artifacts.MANIFEST.read_text())
    entry = next(entry for entry in manifest["jars"] if ":jopt-simple:" in entry["coordinate"])
    entry["sha256"] = "0" * 64
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(manifest))
    (cache / "jopt-simple-5.0.4.jar").unlink()
    with pytest.raises(BrokerArtifactError, match="sha256"):
        class_path(cache, manifest=wrong)
    assert not (cache / "jopt-simple-5.0.4.jar").exists()


def test_jar_that_cannot_be_fetched_is_an_error_of_one_line(cache: Path, tmp_path: Path) -> None:
    manifest = json.loads(artifacts.MANIFEST.read_text())
    manifest["jars"].append({"coordinate": "org.example:absent:1.0", "bytes": 1, "sha256": "0" * 64})
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(manifest))
    with pytest.raises(BrokerArtifactError, match="FEEDMILL_BOOTSTRAP_SERVERS"):
        class_path(cache, manifest=wrong)


def test_unreadable_manifest_is_an_error_of_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"jars": [{"coordinate": "a:b"}]}')
    with pytest.raises(BrokerArtifactError, match="reinstall"):
        pinned_jars(broken)


def test_the_cache_is_in_the_folder_of_its_setting(tmp_path: Path) -> None:
    assert jar_cache(load_settings(cache_dir=tmp_path / "c")).parent == tmp_path / "c"


def test_without_a_writable_home_jars_are_stored_beside_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    assert jar_cache(load_settings(data_dir=tmp_path)).parent == tmp_path / "cache"


def test_the_error_about_an_unwritable_cache_names_its_setting() -> None:
    with pytest.raises(BrokerArtifactError, match="FEEDMILL_CACHE_DIR"):
        class_path(jar_cache(load_settings(cache_dir=Path("/dev/null/cache"))))
