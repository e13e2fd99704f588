from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from consumers.row_filter import RowFilter
from schema.errors import ReplayError

COLUMNS = {"term": pl.String(), "n": pl.Int32(), "id": pl.UInt64(), "reasons": pl.List(pl.String())}
FRAME = pl.DataFrame(
    {"term": ["a", "b", None], "n": [1, 2, 3], "id": [1, 2**64 - 1, 3], "reasons": [["x"], [], None]}, schema=COLUMNS
)


def kept(expression: str) -> list[bool]:
    with RowFilter(expression, COLUMNS, ReplayError) as row_filter:
        return row_filter.mask(FRAME).to_list()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("n > 1", [False, True, True]),
        ("term LIKE 'a%' AND n BETWEEN 0 AND 2", [True, False, False]),
        ("id = 18446744073709551615", [False, True, False]),
        ("list_contains(reasons, 'x')", [True, False, False]),
        ("CASE WHEN n = 1 THEN true ELSE false END", [True, False, False]),
        ("regexp_matches(term, '^[ab]$')", [True, True, False]),
        ("nullif(n, 2) IS NULL", [False, True, False]),
        ("n IN (1, 3) -- a comment", [True, False, True]),
        ("rows.n::VARCHAR = '2'", [False, True, False]),
        ("len(list_filter(reasons, lambda r: r = 'x')) = 1", [True, False, False]),
    ],
)
def test_a_condition_over_columns_chooses_rows(expression: str, expected: list[bool]) -> None:
    assert kept(expression) == expected


def test_an_unknown_result_is_false() -> None:
    assert kept("term = 'a'") == [True, False, False]


@pytest.mark.parametrize(
    "expression",
    [
        "1=1; DROP TABLE rows",
        "1=1; SELECT 1",
        "1=1) UNION SELECT 1 FROM rows WHERE (1=1",
        "1=1) LIMIT (1",
        "1=1) GROUP BY (n",
        "1=1) QUALIFY (true",
        "true) FROM rows WHERE (true",
        "true\n) --",
        "n IN (SELECT 1)",
        "EXISTS (FROM read_csv('{file}'))",
        "'secret' = (SELECT content FROM read_text('{file}'))",
        "'secret' = (FROM '{file}')",
        "read_text('{file}') = ''",
        "read_csv('{file}') = ''",
        "COPY rows TO '{file}.out'",
        "1=1; COPY rows TO '{file}.out'",
        "1=1; ATTACH '{file}.db' AS x",
        "1=1; INSTALL httpfs",
        "1=1; LOAD httpfs",
        "1=1; SET enable_external_access = true",
        "getenv('HOME') = ''",
        "current_setting('threads') = '1'",
        "getvariable('x') = 1",
        "nextval('x') = 1",
        "write_log('x') IS NULL",
        "pg_sleep(1) IS NULL",
        "random() < 0.5",
        "len(list_transform([1], lambda x: random())) = 1",
        "now() > '2020-01-01'",
        "CURRENT_TIMESTAMP > '2020-01-01'",
        "current_user = 'x'",
        "row_number() OVER () = 1",
        "sum(n) > 1",
        "COLUMNS(*) = 1",
        "n = ?",
        "n = $name",
        "nothing = 1",
        "rows.nothing = 1",
        "n",
        "n + 1",
        "true, false",
        "n = 'a'::INTEGER",
        "n >",
        "'",
        "n = 1 /*",
        "",
        "  ",
        "\ud800 = 1",
    ],
)
def test_anything_else_is_refused_in_one_line(expression: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("secret")
    with pytest.raises(ReplayError) as refused:
        kept(expression.replace("{file}", str(file)))
    line = str(refused.value)
    assert "\n" not in line
    assert "give one SQL condition over the columns term, n, id, reasons" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_database_itself_is_locked(tmp_path: Path) -> None:
    # Without the check of the syntax tree, the database itself refuses it, too.
    (tmp_path / "file").write_text("secret")
    with RowFilter("true", COLUMNS, ReplayError) as row_filter:
        for statement in (
            f"FROM read_text('{tmp_path / 'file'}')",
            f"COPY (SELECT 1) TO '{tmp_path / 'out'}'",
            f"ATTACH '{tmp_path / 'x.db'}' AS x",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET threads = 4",
            "SELECT * FROM FRAME",
        ):
            with pytest.raises(ReplayError):
                row_filter._run(statement)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_value_that_makes_the_condition_fail_is_an_error() -> None:
    with pytest.raises(ReplayError, match="Conversion Error"):
        kept("term::INTEGER = 1")


@pytest.mark.slow
def test_times_are_utc_in_every_zone_of_the_machine() -> None:
    program = """
import datetime as d, polars as pl
from consumers.row_filter import RowFilter
from schema.errors import ReplayError
noon = d.datetime(2031, 5, 1, 12)
frame = pl.DataFrame({"zoned": [noon.replace(tzinfo=d.UTC)], "plain": [noon]})
for text in ("zoned = '2031-05-01 12:00:00'", "hour(zoned) = 12", "zoned::TIMESTAMP = plain",
             "zoned::VARCHAR LIKE '%12:00:00+00'", "epoch(zoned) = epoch(plain)", "plain::TIMESTAMPTZ = zoned"):
    with RowFilter(text, frame.schema, ReplayError) as row_filter:
        print(row_filter.mask(frame).to_list())
"""
    for zone in ("UTC", "Asia/Tokyo", "America/St_Johns"):
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["[True]"] * 6, zone


@pytest.mark.parametrize(
    "expression",
    [
        "repeat(term, 1000000000) = ''",
        "len(range(10000000000)) = 1",
        "lpad(term, 1000000000, 'x') = ''",
        "format('{:1000000000}', term) = ''",
        "list_aggregate([n], 'sum') = 1",
        "main.abs(n) = 1",
        "n::JSON = 1",
        "n::secret.kind = 1",
        "json_execute_serialized_sql('x') = 1",
        "md5(pg_read_file('/etc/passwd')) = ''",
        "(" * 2000 + "true" + ")" * 2000,
        "n = 1 OR " * 3000 + "true",
    ],
)
def test_sql_that_no_list_allows_is_refused(expression: str) -> None:
    with pytest.raises(ReplayError) as refused:
        kept(expression)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000
