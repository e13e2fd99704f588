"""Documents of files: reads a file that the walk found, and makes rows of the code family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha1
from typing import Any

import polars as pl

from producers.source_code.file_texts import FileText, file_text
from producers.source_code.licenses import file_license
from producers.source_code.regular_files import read_regular
from producers.source_code.sources import Origin
from producers.source_code.walking import WalkRules
from schema.family import identify
from schema.source_code import FAMILY
from schema.source_code.columns import COMPLETION
from schema.source_code.functions import functions_of
from schema.source_code.languages import FIRST_CLASS, language_of

# What a producer states of a document; the other columns are computed from these.
STATED = (
    *("text", "language", "repository", "commit", "path", "license", "kind", "group"),
    *("before", "after", "diff", "message", "author_date", "signatures", "prompt", "origin", "lint_warnings"),
)


@dataclass(frozen=True, slots=True)
class FileToRead:
    """A file that gives a document.

    Attributes:
        path: relative to the top of its source, with "/".
        size: its bytes on disk.
        blob: the id of its blob in the commit of its origin, in hex; empty if the commit does not have it, and None if
            the commit holds for all files.
        group: its final group.
        signatures: of what it imports from its repository, if they are wanted.
    """

    origin: Origin
    path: str
    size: int
    blob: bytes | None
    group: str
    signatures: str | None = None


def read_file(file: FileToRead, rules: WalkRules) -> FileText | str:
    """Return the text of a file that the walk found, or the reason (of `SKIP_REASONS`) why it gives none."""
    try:
        data = read_regular(file.origin.top / file.path, rules.file_limit_bytes)
    except OSError:
        return "unreadable"
    if data is None:
        return "too_large"
    found = file_text(data, file.path, keep_tests=not rules.exclusions.tests)
    if rules.scrub and isinstance(found, FileText):
        # Imported here because only runs that scrub need it.
        from producers.source_code.secrets import has_secret_name, scrubbed

        if has_secret_name(file.path):
            return "path_secret"
        text, counts = scrubbed(found.text)
        found = replace(found, text=text, scrubbed=counts)
    return found


def snapshot(file: FileToRead, read: FileText) -> dict[str, Any]:
    """Return the columns of a file's document that no score is, except those of evolutions."""
    origin = file.origin
    unchanged = file.blob is None or (file.blob != b"" and file.blob in _blob_ids(read))
    return {
        "text": read.text,
        "language": language_of(file.path),
        "repository": origin.repository,
        "commit": origin.commit if unchanged else None,
        "path": file.path,
        "license": file_license(read.text) or origin.license,
        "kind": "snapshot",
        "signatures": file.signatures,
        "group": file.group,
    }


def function_documents(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a completion for each function of a snapshot in Rust or Python: the function's head is its prompt."""
    if document["language"] in FIRST_CLASS:
        for function in functions_of(document["text"], document["language"]):
            text = (function.prompt + function.body).rstrip()
            yield {**document, "kind": COMPLETION, "text": f"{text}\n", "prompt": function.prompt, "signatures": None}


def document_rows(documents: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return documents as identified rows of the family's wire columns, with their scores; absent columns are null."""
    # Imported here because it loads grammars, which a process that only reads files does not need.
    from schema.source_code.scores import scored

    stated = {name: kind for name, kind in FAMILY.columns.items() if name in STATED}
    frame = pl.DataFrame(documents, schema=stated)
    return identify(scored(frame).select(*FAMILY.columns), FAMILY).select(*FAMILY.wire)


def _blob_ids(read: FileText) -> set[bytes]:
    """Return the ids that git gives the content as it is and with LF line ends, because a checkout may change them."""
    return {
        sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest().encode()
        for data in ((read.data, read.data.replace(b"\r\n", b"\n")) if read.had_crlf else (read.data,))
    }
