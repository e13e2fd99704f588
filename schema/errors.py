"""The error tree: every error Feedmill raises on purpose.

::

    FeedmillError                  one line for the user, which ends with what to do
    ├── ConfigError                a setting is missing or contradicts another
    ├── UsageError                 a command was called with unusable values            (exit status 2)
    │   └── UnknownFamilyError     no family of that name is registered
    ├── BrokerError
    │   ├── BrokerUnavailableError nothing answers at the bootstrap servers
    │   ├── BrokerArtifactError    a Kafka jar is missing, of another version, or not the pinned one
    │   ├── BrokerStartError       the embedded broker did not start
    │   └── DeliveryError          the broker refused or did not acknowledge a record
    ├── ProducerError              a process that generates examples failed or died
    ├── RecordError                a record that cannot be decoded; carries its reason code
    ├── RefineError                the refine stage cannot go on (a stall, a fenced producer)
    ├── CoverageError              the coverage store or its service cannot answer
    │   └── CoverageOwnedError     another process owns the store
    ├── AuditError                 a topic cannot be read to its end, or does not agree with its ledger
    ├── DrainTimeoutError          raw was not refined and folded in time
    ├── RowsLostError              raw records were removed before they were refined
    ├── ReplayError                a replay's bounds, filter or output cannot be served
    ├── FeedError                  a feed cannot give the batches asked for
    ├── EvaluationError            code samples cannot be judged: the sandbox, a compiler or a crate failed
    ├── StoppedError               a signal ended a command early, cleanly        (exit status 130 or 143)
    └── TrainingError              a training run cannot go on
        ├── CheckpointError        a checkpoint is absent, or cannot be read or written
        └── TrainingStoppedError   a signal stopped it after a checkpoint         (exit status 130 or 143)

A command prints a user's error (the first three) as one line. A data error (`RecordError`) never reaches a user: its
reason code goes with the record to the `rejected` stage.
"""

from __future__ import annotations


class FeedmillError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line that says what is wrong and what to do."""

    exit_status = 1


class ConfigError(FeedmillError):
    """A setting is missing, malformed or contradicts another."""


class UsageError(FeedmillError):
    """A command or function was called with values it cannot use."""

    exit_status = 2


class UnknownFamilyError(UsageError):
    """No family of that name is registered."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"unknown family {name!r}: use one of {', '.join(known)}")
        self.name = name


class BrokerError(FeedmillError):
    """The broker failed, or it cannot be reached."""


class BrokerUnavailableError(BrokerError):
    """Nothing answers at the bootstrap servers."""


class BrokerArtifactError(BrokerError):
    """A Kafka jar is missing, of the wrong version, or does not match its pinned hash."""


class BrokerStartError(BrokerError):
    """The embedded broker did not become ready after its start."""


class DeliveryError(BrokerError):
    """The broker refused a record, or did not acknowledge it in time."""


class ProducerError(FeedmillError):
    """A process that generates examples failed or died."""


class RecordError(FeedmillError):
    """A record's bytes cannot become rows.

    `reason` is a stable code (`garbage`, `unknown_schema_version`, ...) that is counted in the ledger; the message is
    for the dead letter's `__connect.errors.exception.message` header.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RefineError(FeedmillError):
    """The refine stage cannot go on; its process ends, so that it acknowledges nothing that is not committed."""


class CoverageError(FeedmillError):
    """The coverage store or its service cannot answer."""


class CoverageOwnedError(CoverageError):
    """Another process owns the coverage store."""


class AuditError(FeedmillError):
    """An audit could not read a topic to its end, or a topic does not agree with its ledger."""


class DrainTimeoutError(FeedmillError):
    """Raw records were not all refined and folded within the time given."""


class RowsLostError(FeedmillError):
    """Retention removed raw records before they were refined."""


class ReplayError(FeedmillError):
    """A replay's bounds, filter or output cannot be served."""


class FeedError(FeedmillError):
    """A feed cannot give the batches it was asked for."""


class EvaluationError(FeedmillError):
    """Code samples cannot be judged, because the sandbox, a compiler or a crate failed."""


class StoppedError(FeedmillError):
    """A signal stopped a command cleanly; the message says what was done until then."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class TrainingError(FeedmillError):
    """A training run cannot go on."""


class CheckpointError(TrainingError):
    """A checkpoint is absent, or cannot be read or written."""


class TrainingStoppedError(TrainingError):
    """A signal stopped a training run."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status
