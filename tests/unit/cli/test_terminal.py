"""How values look: durations, sizes, tables, marks."""

import io
import sys
from datetime import UTC, datetime, timedelta

import click
import pytest

from stepwell.cli import terminal


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.04, "0.0 ms"),
        (0.3, "0.3 ms"),
        (42, "42 ms"),
        (999.4, "999 ms"),
        (999.9, "1.0 s"),
        (1234, "1.2 s"),
        (59_900, "59.9 s"),
        (59_999, "1 min"),
        (125_000, "2 min 5 s"),
        (3_600_000, "1 h"),
        (7_800_000, "2 h 10 min"),
        (100 * 3_600_000, "4 d 4 h"),
    ],
)
def test_a_duration_is_shown_in_the_unit_that_fits(milliseconds: float, text: str) -> None:
    assert terminal.duration(milliseconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (312, "312 B"), (2150, "2.1 KiB"), (5 * 1024**2, "5.0 MiB"), (1024**3, "1.0 GiB")]
)
def test_a_size_is_shown_in_the_unit_that_fits(count: int, text: str) -> None:
    assert terminal.size(count) == text


def test_an_age_is_never_negative() -> None:
    now = datetime.now(UTC)
    assert terminal.age(now + timedelta(seconds=5)) == "0 s ago"
    assert terminal.age(now - timedelta(minutes=3)).startswith("3 min")


def test_an_id_is_shown_by_its_ending() -> None:
    assert terminal.short("run_0123456789abcdefghjkmnpqrs") == "…mnpqrs"
    assert terminal.ending("run_0123456789abcdefghjkmnpqrs") == "mnpqrs"


def test_a_table_is_aligned_by_what_is_seen_of_its_cells() -> None:
    lines = terminal.table(("a", "bb"), [(click.style("long", fg="red"), "x"), ("y", "z")])
    assert [click.unstyle(line) for line in lines] == ["a     bb", "long  x", "y     z"]


def test_fields_of_several_lines_are_indented() -> None:
    lines = [click.unstyle(line) for line in terminal.fields([("name", "one\ntwo"), ("n", "")])]
    assert lines == ["name  one", "      two", "n"]


def test_long_text_is_cut() -> None:
    assert terminal.one_line("a\n b   c") == "a b c"
    assert terminal.one_line("x" * 100, 10) == "x" * 9 + "…"
    assert terminal.cut('{"text":"a    b"}', 20) == '{"text":"a    b"}'
    assert terminal.cut("x" * 100, 10) == "x" * 9 + "…"


def test_a_command_names_the_store_that_was_named() -> None:
    assert terminal.command("runs", "show", "k3m9xa", store=None) == "stepwell runs show k3m9xa"
    assert terminal.command("runs", "list", store="sqlite:///a b.db") == "stepwell runs list --store 'sqlite:///a b.db'"


def test_marks_are_ascii_where_stderr_cannot_show_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert click.unstyle(terminal.mark(terminal.DONE)) == "✓"
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert click.unstyle(terminal.mark(terminal.DONE)) == "+"


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    terminal.say(terminal.bold("loud"))
    assert "\x1b[" in screen.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    screen.truncate(0)
    terminal.say(terminal.bold("loud"))
    assert "\x1b[" not in screen.getvalue()
