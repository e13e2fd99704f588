"""`feedmill forget` from the command line."""

from __future__ import annotations

import json

from broker.clients import Connection
from tests import reductions
from tests.consumers.records import write
from tests.feedmill.conftest import Command


def test_the_report_names_the_rows_and_the_topic(connection: Connection, called: Command) -> None:
    write(connection, reductions.valid(30))
    status, out, err = called("forget", "reduction", "--where", "size > 30", "--dry-run")
    assert (status, out) == (0, "")
    assert "rows would be retracted in" in err
    status, out, _ = called("forget", "reduction", "--where", "size > 30", "--reason", "asked out", "--json")
    report = json.loads(out)
    assert status == 0
    assert (report["reason"], report["dry_run"]) == ("asked out", False)
    assert 0 < report["rows_retracted"] == report["rows_found"] < 30
    status, _, err = called("forget", "reduction", "--where", "size > 30")
    assert f"0 rows retracted -> {report['topic']}" in err
    assert f"{report['rows_found']} of them were retracted before" in err


def test_a_filter_that_is_not_sql_is_a_one_line_error(connection: Connection, called: Command) -> None:
    status, _, err = called("forget", "reduction", "--where", "DROP TABLE rows")
    assert status == 2
    assert err.startswith("feedmill: the filter 'DROP TABLE rows' cannot be used")
    assert err.count("\n") == 1
