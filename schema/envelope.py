"""The headers of a record: those that Feedmill writes, and those that it reads from any record.

Headers follow CloudEvents binary mode; Feedmill's own begin with `feedmill-`. Records made from a file also name the
file and its lines (`feedmill-source-file`, `feedmill-lines`): see `schema.source_lines`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from schema.errors import RecordError
from schema.source_lines import LINES_HEADER, SOURCE_FILE_HEADER, file_name

ARROW_STREAM = "application/vnd.apache.arrow.stream"
JSON = "application/json"
SPEC_VERSION = "1.0"

Headers = Sequence[tuple[str, bytes]]

# Characters kept of any header: one from another program can have megabytes.
HEADER_MAX_CHARS = 256
# A character takes four bytes at most.
_HEADER_MAX_BYTES = 4 * HEADER_MAX_CHARS

_CE_TYPE = re.compile(r"feedmill\.(?P<family>[a-z_]+)\.(?P<stage>[a-z]+)\.v(?P<version>[0-9]{1,6})")


@dataclass(frozen=True)
class Envelope:
    """The headers that Feedmill writes on a record.

    `run`, `chunk` and `part` make the CloudEvents id; `source` is `topic/partition/offset` on refined records.
    """

    family: str
    stage: str
    version: int
    run: str
    chunk: int
    part: int | str
    rows: int
    source: str | None = None

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the Kafka headers, in a fixed order, UTF-8."""
        values = {
            "ce_specversion": SPEC_VERSION,
            "ce_id": f"{self.run}/{self.chunk}/{self.part}",
            "ce_type": f"feedmill.{self.family}.{self.stage}.v{self.version}",
            "ce_source": f"feedmill/{self.family}",
            "ce_time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "content-type": ARROW_STREAM,
            "feedmill-run": self.run,
            "feedmill-chunk": str(self.chunk),
            "feedmill-rows": str(self.rows),
        }
        if self.source is not None:
            values["feedmill-source"] = self.source
        return [(name, value.encode()) for name, value in values.items()]


@dataclass(frozen=True)
class ForeignHeaders:
    """The headers of a record that anybody may have written: all optional, each cut to 256 characters.

    Attributes:
        content_type: lower case, without parameters.
        ce_type: (family, stage, version).
        run, chunk: the producer run that the record names, and its chunk in that run.
        says_empty: whether the headers declare 0 rows, as on the record of a model call without an answer.
        source_file: the name of the file that the rows came from.
        lines: the text of line numbers, for `schema.source_lines.parse_line_ranges`.
    """

    content_type: str
    ce_type: tuple[str, str, int] | None
    run: str | None
    chunk: int | None
    says_empty: bool = False
    source_file: str | None = None
    lines: str | None = None

    @classmethod
    def parse(cls, headers: Iterable[tuple[str, bytes | None]] | None) -> ForeignHeaders:
        """Read `headers`; undecodable values read as absent.

        Raises:
            RecordError: `malformed_ce_type`: a ce_type is present and does not have Feedmill's form.
        """
        given = {name: value for name, value in headers or () if value is not None}
        texts = {name: _text(value) for name, value in given.items() if name in _READ_HEADERS}
        ce_type = None
        if "ce_type" in texts:
            match = _CE_TYPE.fullmatch(texts["ce_type"])
            if match is None:
                raise RecordError("malformed_ce_type", f"ce_type {texts['ce_type'][:80]!r} is not Feedmill's")
            ce_type = (match["family"], match["stage"], int(match["version"]))
        chunk = texts.get("feedmill-chunk", "")
        file = texts.get(SOURCE_FILE_HEADER)
        return cls(
            content_type=texts.get("content-type", JSON).partition(";")[0].strip().lower(),
            ce_type=ce_type,
            run=texts.get("feedmill-run"),
            chunk=int(chunk) if re.fullmatch(r"[0-9]{1,18}", chunk) else None,
            says_empty=texts.get("feedmill-rows") == "0",
            source_file=None if file is None else file_name(file),
            # `parse_line_ranges` checks the length of this header.
            lines=given[LINES_HEADER].decode("utf-8", "replace") if LINES_HEADER in given else None,
        )


_READ_HEADERS = frozenset(
    {"content-type", "ce_type", "feedmill-run", "feedmill-chunk", "feedmill-rows", SOURCE_FILE_HEADER}
)


def header_text(headers: Iterable[tuple[str, bytes | None]], name: str) -> str | None:
    """Return the text of the last header named `name`, cut to 256 characters; None if it is missing."""
    last = None
    for each, value in headers:
        if each == name and value is not None:
            last = value
    return None if last is None else _text(last)


def _text(value: bytes) -> str:
    return value[:_HEADER_MAX_BYTES].decode("utf-8", "replace")[:HEADER_MAX_CHARS]
