"""Sizes, ages and tables in Docker's words."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.cli import output
from limpet.cli.output import formatted, table
from limpet.units import age, duration, seconds_of, size_binary, size_decimal

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (12_345_678, "12.3MB"),
        (117_000_000, "117MB"),
        (10**12, "1TB"),
        (999_600, "1MB"),
    ],
)
def test_decimal_sizes(count: int, text: str) -> None:
    assert size_decimal(count) == text


@pytest.mark.parametrize(("count", "text"), [(17 << 20, "17MiB"), (1536, "1.5KiB"), (1 << 30, "1GiB"), (5, "5B")])
def test_binary_sizes(count: int, text: str) -> None:
    assert size_binary(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (MINUTE, "About a minute"),
        (119, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (59 * MINUTE, "59 minutes"),
        (HOUR, "About an hour"),
        (1.6 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ages() -> None:
    assert age(time.time() - 7200) == "2 hours ago"


@given(st.integers(0, 4_000_000_000))
def test_times_are_read_back(moment: int) -> None:
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    assert seconds_of(text) == moment


@pytest.mark.parametrize("text", ["", "x", "2026-13", "2026-11-24"])
def test_what_is_no_time_is_zero(text: str) -> None:
    assert seconds_of(text) == 0


def test_tables_are_aligned_and_lines_have_no_blanks_at_the_end() -> None:
    text = "A         BBB       C\n1         2         x\nlong"
    assert table(["A", "BBB", "C"], [["1", "2", "x"], ["long", "", ""]]) == text


ROWS = [{"ID": "1", "Name": "a", "Extra": 5}, {"ID": "2", "Name": "b", "Extra": None}]
COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Name"))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", "CONTAINER ID   NAMES\n1              a\n2              b"),
        ("table", "CONTAINER ID   NAMES\n1              a\n2              b"),
        ("json", '{"Extra":5,"ID":"1","Name":"a"}\n{"Extra":null,"ID":"2","Name":"b"}'),
        ("{{.Name}}={{.ID}}", "a=1\nb=2"),
        ("table {{.Name}}\\t{{.Extra}}", "NAMES     EXTRA\na         5\nb         <nil>"),
        ("{{.ID}}\\t{{.Name}}", "1\ta\n2\tb"),
    ],
)
def test_formats(template: str, text: str) -> None:
    assert formatted(template, ROWS, COLUMNS) == text


def test_no_rows() -> None:
    assert formatted("", [], COLUMNS) == "CONTAINER ID   NAMES"
    assert formatted("{{.Name}}", [], COLUMNS) == ""
    assert formatted("json", [], COLUMNS) == ""


def test_raw() -> None:
    assert formatted("raw", ROWS, COLUMNS) == "container_id: 1\nnames: a\n\ncontainer_id: 2\nnames: b\n"


def test_nothing_in_a_cell_moves_the_cursor() -> None:
    text = table(["A"], [["\x1b[2Jx\ny\tz\x9b"]])
    assert text == "A\n\\x1b[2Jx y z\\x9b"


def test_columns_give_way_on_a_narrow_terminal_but_the_kept_one(monkeypatch: pytest.MonkeyPatch) -> None:
    headers, row = ["ID", "COMMAND", "NAMES"], ["0123456789ab", "a-command-of-many-letters", "a-name-that-stays-whole"]
    monkeypatch.setattr(output, "terminal_width", lambda: 60)
    lines = table(headers, [row], keep=2).splitlines()
    assert lines[1] == "0123456789ab   a-command-of-many-…   a-name-that-stays-whole"
    assert max(map(len, lines)) <= 60
    monkeypatch.setattr(output, "terminal_width", lambda: 20)
    lines = table(headers, [row], keep=2).splitlines()
    assert lines[0].split() == headers, "no header is cut"
    assert lines[1] == "012345…   a-comm…   a-name-that-stays-whole"
    monkeypatch.setattr(output, "terminal_width", lambda: 0)
    assert table(headers, [row], keep=2).splitlines()[1] == "   ".join(row)


@given(st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), max_size=5), st.integers(1, 200))
def test_every_table_has_a_line_for_each_row(rows: list[list[str]], width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "terminal_width", lambda: width)
        text = table(["A", "B", "C"], rows, keep=0)
    assert len(text.split("\n")) == len(rows) + 1
    assert all(len(line) == len(line.rstrip()) for line in text.split("\n"))
