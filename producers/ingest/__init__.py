"""Foreign examples into raw: files and pipes of JSON, Parquet and Arrow, each row with its file and line.

Nothing is judged here. Every row goes to the raw topic as a line of JSON; the refine stage parses it, judges it and
sends it on to the partition it belongs in, so that every row is answered for in the ledger.

- `kinds`: what a file is, by its first bytes, and what to do with one that cannot be read.
- `streams`: bytes as they arrive, from a file or a pipe, with the first of them looked at; decompression.
- `text`: JSON lines, JSON arrays and JSON objects on several lines -> rows.
- `tables`: Parquet and Arrow -> rows.
- `background`: a thread that reads, so that the sender can also go by the clock.
- `batches`: rows -> records, by rows, bytes and time.
- `run`: all of these together, and the records on their way.
"""

from producers.ingest.run import ingest, ingest_stream

__all__ = ["ingest", "ingest_stream"]
