"""Ingest foreign examples: send files and pipes of JSON, Parquet or Arrow to a raw topic, row by row.

Rows are not validated here. Every row goes to the raw topic as a line of JSON, with its file name and line number in
the record's headers. The refine stage parses and validates it, moves it to its partition and counts it in the ledger.

- `kinds`: detect a file's kind by its first bytes; refuse other files with advice.
- `streams`: read bytes as they arrive from a file or a pipe; decompress them.
- `text`: JSON lines, JSON arrays and JSON objects on several lines -> rows.
- `tables`: Parquet and Arrow -> rows.
- `background`: a reading thread, so that the sender can also send by the clock.
- `batches`: rows -> records, by rows, bytes and time.
- `run`: combines all of these and sends the records.
"""

from producers.ingest.run import ingest, ingest_stream

__all__ = ["ingest", "ingest_stream"]
