"""Kafka's jars: fetched once from Maven into the user's cache, and checked against pinned hashes at every start.

`kafka-jars.json` lists every jar by Maven coordinate, size and sha256; it is the only list of what the broker's JVM
loads. Takes a cache folder, gives the class path. With all jars in the cache nothing is imported from jgo and no
network is used.
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

from schema.errors import BrokerArtifactError
from schema.settings import Settings

KAFKA_VERSION = "4.3.1"
KAFKA_GROUP = "org.apache.kafka"
MANIFEST = Path(__file__).with_name("kafka-jars.json")

# Small jars make the fetch wait for answers rather than for bytes; a registry is not to be hammered either.
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

    def check(self, path: Path, mend: str) -> None:
        """Compare the file at `path` with the pin; `mend` is what to do where they differ.

        Raises:
            BrokerArtifactError: it differs in a single bit.
        """
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise BrokerArtifactError(f"{path} has sha256 {found[:16]}..., pinned is {self.sha256[:16]}...: {mend}")


def pinned_jars(manifest: Path = MANIFEST) -> list[Jar]:
    """Read the manifest.

    Raises:
        BrokerArtifactError: it is unreadable, or names a Kafka jar of another version than `KAFKA_VERSION`.
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
    """Refuse a mix of Kafka versions, which a dependency resolver may give and a JVM would load.

    Raises:
        BrokerArtifactError: a jar of Kafka's group is not of `KAFKA_VERSION`.
    """
    for group, artifact, version in coordinates:
        if group == KAFKA_GROUP and version != KAFKA_VERSION:
            raise BrokerArtifactError(
                f"{artifact} is of version {version}, not {KAFKA_VERSION}: resolve Kafka alone and pin it again"
            )


def jar_cache(settings: Settings) -> Path:
    """Return the folder for the jars of this Kafka version.

    It is in `settings.cache_dir`; without that setting in the user's home folder, which all data folders share; and in
    `settings.data_dir` where there is no home folder that can be written.
    """
    name = f"kafka-{KAFKA_VERSION}"
    if settings.cache_dir is not None:
        return settings.cache_dir / name
    try:
        shared = Path.home() / ".cache" / "feedmill" / name
        shared.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return settings.data_dir.absolute() / "cache" / name
    return shared


def class_path(cache: Path, on_progress: OnProgress | None = None, manifest: Path = MANIFEST) -> list[Path]:
    """Return the checked jars under `cache`, fetching those that are missing.

    Args:
        cache: a folder, made if absent; several processes may use it at once.
        on_progress: told, in short lines, how far a fetch is; not called when nothing is missing.
        manifest: the pins.

    Raises:
        BrokerArtifactError: a jar cannot be fetched, or is not the pinned one. Nothing unchecked is ever left in
            the cache by a fetch.
    """
    jars = pinned_jars(manifest)
    if any(not (cache / jar.file_name).is_file() for jar in jars):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / ".lock", timeout=_FETCH_LOCK_TIMEOUT_S):
                _fetch([jar for jar in jars if not (cache / jar.file_name).is_file()], cache, on_progress)
        except Timeout:
            raise BrokerArtifactError(
                f"another process has been fetching jars into {cache} for {_FETCH_LOCK_TIMEOUT_S:.0f} s: end it"
            ) from None
        except OSError as error:
            raise BrokerArtifactError(
                f"Kafka's jars cannot be kept in {cache} ({error.strerror or error}): set FEEDMILL_CACHE_DIR to a "
                "folder that can be written and has 50 MB free"
            ) from error
    paths = [cache / jar.file_name for jar in jars]
    for jar, path in zip(jars, paths, strict=True):
        jar.check(path, "delete the file to fetch it anew")
    return paths


def _fetch(jars: list[Jar], cache: Path, on_progress: OnProgress | None) -> None:
    if not jars:
        return
    # Slow to import, and needed once in the life of a cache.
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    try:
        mirrors = GlobalSettings.load().repositories
    except RuntimeError:  # jgo reads it from the home folder, and there is none
        mirrors = {}
    total_bytes = sum(jar.size_bytes for jar in jars)
    done_bytes = steps_told = 0
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as staging:
        context = MavenContext(
            repo_cache=Path(staging), remote_repos={**mirrors, "central": MAVEN_CENTRAL_URL}, timeout=30
        )

        def fetch(jar: Jar) -> Jar:
            # By coordinate, without walking the dependency graph: the manifest is the graph, already resolved.
            path = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
            jar.check(path, "the Maven repository serves another file; ask those who run it, or use another network")
            path.replace(cache / jar.file_name)
            return jar

        with ThreadPoolExecutor(_FETCH_THREADS) as pool:
            try:
                for jar in pool.map(fetch, jars):
                    done_bytes += jar.size_bytes
                    if on_progress and done_bytes >= (steps_told + 1) / PROGRESS_STEPS * total_bytes:
                        steps_told = done_bytes * PROGRESS_STEPS // total_bytes
                        on_progress(
                            f"fetching Kafka {KAFKA_VERSION}: {done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB"
                        )
            except BaseException as error:
                # Ctrl-C, or one failure, does not wait for the other jars.
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, BrokerArtifactError) or not isinstance(error, Exception):
                    raise
                # jgo raises whatever its HTTP library, or it, finds fit.
                raise BrokerArtifactError(
                    f"Kafka's jars cannot be fetched ({type(error).__name__}): check the network and try again, "
                    "or set FEEDMILL_BOOTSTRAP_SERVERS to a Kafka of your own"
                ) from error
