"""The embedded broker's files and configuration: one KRaft node, broker and controller in one process.

Settings and ports become the text of `server.properties`. Comments give the reasons for values that differ from Kafka's
defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schema.settings import Settings

HOST = "127.0.0.1"
NODE_ID = 1
INT_MAX = 2**31 - 1


@dataclass(frozen=True)
class KraftLayout:
    """The paths of the embedded broker's files, all in one folder; paths are absolute."""

    root: Path

    @classmethod
    def of(cls, settings: Settings) -> KraftLayout:
        """Return the layout under `settings.data_dir`."""
        return cls(settings.data_dir.resolve() / "broker")

    @property
    def data(self) -> Path:
        """Kafka's own folder: topics, the metadata log, `meta.properties`."""
        return self.root / "data"

    @property
    def logs(self) -> Path:
        """Folder of `server.log` and `console.log`."""
        return self.root / "logs"

    @property
    def log_file(self) -> Path:
        """Kafka's log."""
        return self.logs / "server.log"

    @property
    def console_file(self) -> Path:
        """The JVM's own output: crashes, memory errors, a configuration that cannot be parsed."""
        return self.logs / "console.log"

    @property
    def scratch(self) -> Path:
        """The JVM's folder for temporary files; unpacked native libraries would stay in /tmp after a `kill -9`."""
        return self.root / "tmp"

    @property
    def properties(self) -> Path:
        """Kafka's configuration; its absolute path in a command line identifies the broker's process."""
        return self.root / "server.properties"

    @property
    def state(self) -> Path:
        """Pid and port of the broker that was started last."""
        return self.root / "broker.json"

    @property
    def lock(self) -> Path:
        """The lock file for starting and stopping."""
        return self.root / ".lock"

    @property
    def formatted(self) -> bool:
        """Whether Kafka's folder has been formatted."""
        return (self.data / "meta.properties").is_file()

    def make(self) -> None:
        """Create the folders.

        Raises:
            OSError: a folder cannot be created.
        """
        for folder in (self.data, self.logs, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)

    def clear_scratch(self) -> None:
        """Remove the temporary files of a killed JVM."""
        for leftover in self.scratch.iterdir():
            leftover.unlink()


def server_properties(settings: Settings, layout: KraftLayout, port: int, controller_port: int) -> dict[str, str]:
    """Return the configuration of a single node that listens on 127.0.0.1 only."""
    return {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        # Static voters: the port may differ from start to start.
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
        # Relative to the JVM's working folder, because Kafka reads a comma in a path as a separator.
        "log.dirs": layout.data.name,
        # One node holds one copy.
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # 50 by default for each; every partition costs files and start-up time.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        # A misspelt topic is an error, not a new topic.
        "auto.create.topics.enable": "false",
        # Records and the committed positions of refine workers never expire.
        "log.retention.ms": "-1",
        "log.retention.bytes": "-1",
        "offsets.retention.minutes": str(INT_MAX),
        "message.max.bytes": str(settings.raw_record_max_bytes + settings.record_max_bytes),
        # A killed worker's partitions go to another worker after `session_timeout_s`, which may be as low as 1 s.
        "group.min.session.timeout.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
        # After a kill -9 the node is refused until its old session ends (9 s by default, with a heartbeat every 2 s). A
        # value below 4 s would fence the node on a busy machine.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
        # The transaction of a dead producer blocks read_committed readers until it is aborted.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # 128 MB by default, a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.recovery.threads.per.data.dir": "2",
    }


def render(properties: dict[str, str]) -> str:
    """Return `properties` as a Java properties file; all values are ASCII and free of backslashes."""
    return "".join(f"{name}={value}\n" for name, value in properties.items())
