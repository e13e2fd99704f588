"""Kafka's jars: fetched once from Maven into the user's cache, and checked against pinned hashes at every start.

`kafka-jars.json` lists every jar by Maven coordinate, size and sha256. The broker's JVM loads these jars only. If all
jars are in the cache, jgo is not imported and the network is not used.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from schema.cache_folder import cache_folder
from schema.errors import BrokerArtifactError
from schema.settings import Settings

KAFKA_VERSION = "4.3.1"
KAFKA_GROUP = "org.apache.kafka"
MANIFEST = Path(__file__).with_name("kafka-jars.json")

# Small jars wait for answers more than for bytes, so several threads help; more would burden the registry.
_FETCH_THREADS = 6
PROGRESS_STEPS = 10
# Another process may be fetching the same jars over a slow line.
_FETCH_LOCK_TIMEOUT_S = 900.0

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Jar:
    """One pinned jar: its Maven coordinate, size in bytes and sha256 in hex."""

    group: str
    artifact: str
    version: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The jar's name in the cache folder, as Maven names it."""
        return f"{self.artifact}-{self.version}.jar"

    def check(self, path: Path, advice: str) -> None:
        """Compare the file at `path` with the pinned hash; `advice` ends the error.

        Raises:
            BrokerArtifactError: the file has another hash.
        """
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 != self.sha256:
            raise BrokerArtifactError(f"{path} has sha256 {sha256[:16]}... instead of {self.sha256[:16]}...: {advice}")


def pinned_jars(manifest: Path = MANIFEST) -> list[Jar]:
    """Return the jars in the manifest.

    Raises:
        BrokerArtifactError: the manifest is unreadable, or lists a Kafka jar of another version than `KAFKA_VERSION`.
    """
    try:
        jars = []
        for entry in json.loads(manifest.read_text())["jars"]:
            group, artifact, version = entry["coordinate"].split(":")
            jars.append(Jar(group, artifact, version, entry["bytes"], entry["sha256"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokerArtifactError(f"{manifest} cannot be read ({error!r}): reinstall feedmill") from error
    check_versions((jar.group, jar.artifact, jar.version) for jar in jars)
    return jars


def check_versions(coordinates: Iterable[tuple[str, str, str]]) -> None:
    """Refuse Kafka jars of another version, which a dependency resolver may mix in.

    Raises:
        BrokerArtifactError: a jar of `KAFKA_GROUP` does not have `KAFKA_VERSION`.
    """
    for group, artifact, version in coordinates:
        if group == KAFKA_GROUP and version != KAFKA_VERSION:
            raise BrokerArtifactError(
                f"{artifact} has version {version}, not {KAFKA_VERSION}: resolve Kafka alone and pin its jars again"
            )


def jar_cache(settings: Settings) -> Path:
    """Return the folder for the jars of this Kafka version.

    `cache_folder` says where it is.
    """
    return cache_folder(settings, f"kafka-{KAFKA_VERSION}")


def class_path(cache: Path, on_progress: OnProgress | None = None, manifest: Path = MANIFEST) -> list[Path]:
    """Return the checked jars in `cache`, after fetching those that are missing.

    Args:
        cache: a folder, made if absent; several processes may use it at once.
        on_progress: called with short lines about the progress of a fetch; not called if no jar is missing.
        manifest: the list of pinned jars.

    Raises:
        BrokerArtifactError: a jar cannot be fetched, or is not the pinned one. A fetch leaves only checked jars in the
            cache.
    """
    jars = pinned_jars(manifest)
    if any(not (cache / jar.file_name).is_file() for jar in jars):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / ".lock", timeout=_FETCH_LOCK_TIMEOUT_S):
                _fetch([jar for jar in jars if not (cache / jar.file_name).is_file()], cache, on_progress)
        except Timeout:
            raise BrokerArtifactError(
                f"another process has been fetching jars into {cache} for {_FETCH_LOCK_TIMEOUT_S:.0f} s: end it and "
                "try again"
            ) from None
        except OSError as error:
            raise BrokerArtifactError(
                f"Kafka's jars cannot be stored in {cache} ({error.strerror or error}): set FEEDMILL_CACHE_DIR to a "
                "writable folder with 50 MB free"
            ) from error
    paths = [cache / jar.file_name for jar in jars]
    for jar, path in zip(jars, paths, strict=True):
        jar.check(path, "delete the file and try again to fetch it")
    return paths


def _fetch(jars: list[Jar], cache: Path, on_progress: OnProgress | None) -> None:
    if not jars:
        return
    # jgo is slow to import, and a cache needs it only once.
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    try:
        mirrors = GlobalSettings.load().repositories
    except RuntimeError:  # jgo reads its settings from the home folder, which may be missing
        mirrors = {}
    total_bytes = sum(jar.size_bytes for jar in jars)
    done_bytes = steps_reported = 0
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as staging:
        context = MavenContext(
            repo_cache=Path(staging), remote_repos={**mirrors, "central": MAVEN_CENTRAL_URL}, timeout=30
        )

        def fetch(jar: Jar) -> Jar:
            # By coordinate, without walking the dependency graph: the manifest lists the resolved graph.
            path = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
            jar.check(path, "the Maven repository serves another file; ask its operators, or use another network")
            path.replace(cache / jar.file_name)
            return jar

        with ThreadPoolExecutor(_FETCH_THREADS) as pool:
            try:
                for jar in pool.map(fetch, jars):
                    done_bytes += jar.size_bytes
                    if on_progress and done_bytes >= (steps_reported + 1) / PROGRESS_STEPS * total_bytes:
                        steps_reported = done_bytes * PROGRESS_STEPS // total_bytes
                        on_progress(
                            f"fetching Kafka {KAFKA_VERSION}: {done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB"
                        )
            except BaseException as error:
                # After Ctrl-C or one failure, do not wait for the other jars.
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, BrokerArtifactError) or not isinstance(error, Exception):
                    raise
                # jgo and its HTTP library raise exceptions of many kinds.
                raise BrokerArtifactError(
                    f"Kafka's jars cannot be fetched ({type(error).__name__}): check the network and try again, "
                    "or set FEEDMILL_BOOTSTRAP_SERVERS to a Kafka of your own"
                ) from error
