"""How things look on a terminal: marks, colours, durations, ids, tables. Pure text; a pipe changes colours, never
the format.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, Any, Final

import click

DONE: Final = "done"
REMEMBERED: Final = "remembered"
FAILED: Final = "failed"
RETRYING: Final = "retrying"
NOTE: Final = "note"
STOPPED: Final = "stopped"
WAITS: Final = "waits"
ASKS: Final = "asks"
TEXT: Final = "text"

_MARKS: Final[Mapping[str, tuple[str, str, str]]] = {
    DONE: ("✓", "+", "green"),
    REMEMBERED: ("↺", "=", "cyan"),
    FAILED: ("✗", "x", "red"),
    RETRYING: ("⟳", "~", "yellow"),
    NOTE: ("•", "*", "blue"),
    STOPPED: ("■", "#", "yellow"),
    WAITS: ("…", ".", "cyan"),
    ASKS: ("?", "?", "yellow"),
    TEXT: ("│", "|", "blue"),
}
_STATUS_COLOURS: Final[Mapping[str, str]] = {
    "succeeded": "green",
    "running": "cyan",
    "queued": "cyan",
    "waiting": "cyan",
    "failed": "red",
    "exhausted": "red",
    "timed_out": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "diverged": "yellow",
    "in_doubt": "yellow",
}
_SHORT_ID: Final = 6


def say(text: str = "") -> None:
    """Write a line for people: to stderr, so that stdout keeps the output and nothing else."""
    click.echo(text, err=True, color=_wants_colour(sys.stderr))


def show(text: str = "") -> None:
    """Write a line that was asked for: to stdout."""
    click.echo(text, color=_wants_colour(sys.stdout))


def _wants_colour(stream: IO[Any] | None) -> bool:  # none where the process was started without it
    return stream is not None and not os.environ.get("NO_COLOR") and stream.isatty()


def mark(kind: str) -> str:
    """The sign of a kind of line, in its colour; in ASCII where stderr cannot show more."""
    sign, plain, colour = _MARKS[kind]
    try:
        sign.encode((sys.stderr and sys.stderr.encoding) or "ascii")
    except UnicodeEncodeError:
        sign = plain
    return click.style(sign, fg=colour)


def dim(text: str) -> str:
    """Text that matters less."""
    return click.style(text, dim=True)


def bold(text: str) -> str:
    """Text that stands out."""
    return click.style(text, bold=True)


def status_text(status: str) -> str:
    """A run's status in its colour."""
    return click.style(status, fg=_STATUS_COLOURS.get(status))


# ---------------------------------------------------------------- values


def short(run_id: str) -> str:
    """The ending of an id, as people read and type it: `…k3m9xa`."""
    return f"…{run_id[-_SHORT_ID:]}"


def ending(run_id: str) -> str:
    """The ending of an id, ready to be typed."""
    return run_id[-_SHORT_ID:]


def command(*words: str, store: str | None) -> str:
    """A `stepwell` command, ready to be typed, that looks at the store which this one was told to look at."""
    return shlex.join(("stepwell", *words, *(("--store", store) if store else ())))


def duration(milliseconds: float) -> str:
    """A duration in the unit that fits: `0.3 ms`, `42 ms`, `1.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def age(when: datetime) -> str:
    """How long ago something was: `4 s ago`, `3 min 5 s ago`."""
    seconds = max(0.0, (datetime.now(UTC) - when).total_seconds())
    return f"{round(seconds)} s ago" if seconds < 60 else f"{duration(seconds * 1000)} ago"


def moment(when: datetime) -> str:
    """A time in the local zone, to the second."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(count: int) -> str:
    """A number of bytes in the unit that fits: `312 B`, `2.1 KiB`, `5.0 MiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def one_line(text: str, room: int = 60) -> str:
    """Text on one line, cut with `…` where it is longer than the room."""
    return cut(" ".join(text.split()), room)


def cut(text: str, room: int) -> str:
    """Text as it is, its end replaced with `…` where it is longer than the room."""
    return text if len(text) <= room else text[: room - 1] + "…"


# ---------------------------------------------------------------- shapes


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of left-aligned columns under a dim head. Cells may be coloured."""
    widths = [max(len(click.unstyle(row[column])) for row in (head, *rows)) for column in range(len(head))]
    lines = [dim(_row(head, widths))]
    return lines + [_row(row, widths) for row in rows]


def fields(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of `name  value`, aligned; values of several lines are indented below their first."""
    width = max((len(name) for name, _ in pairs), default=0)
    lines = []
    for name, value in pairs:
        first, *more = value.split("\n")
        lines.append(f"{dim(name.ljust(width))}  {first}" if first else dim(name))
        lines += [f"{' ' * width}  {line}" for line in more]
    return lines


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join(padded).rstrip()
