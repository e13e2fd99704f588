"""The command `feedmill ingest`: sends rows of a file or of standard input to a raw topic."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from schema.registry import family_named
from schema.settings import load_settings


def ingest_command(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. reduction")],
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A file, or - for standard input.")],
) -> None:
    """Send rows of JSON (lines, arrays, objects), Parquet or Arrow to raw; the refine workers judge each row.

    JSON and Arrow streams may be compressed with gzip, bzip2, xz, zstd or lz4. A pipe may stay open: rows are sent
    within half a second, and Ctrl-C sends the rows read so far.
    """
    from broker.clients import connect
    from broker.topics import ensure_topics
    from producers.ingest import ingest

    declared = family_named(family)
    connection = connect(load_settings())
    ensure_topics(connection, [declared.name])
    report = ingest(connection, declared, file)
    print(f"{report.rows:,} rows -> {connection.settings.namespace}.{declared.name}.raw", file=sys.stderr)
