"""The faults of a storm, and when the machine itself came late: what happened to the processes, with its times."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["kill", "stop", "lock"]
Span: TypeAlias = tuple[int, int]
"""From when to when, in microseconds since the epoch."""

SHARES: Final[tuple[tuple[Kind, int], ...]] = (("kill", 13), ("stop", 5), ("lock", 2))
"""Of twenty faults: workers killed, workers stopped for a lease and a half, the write lock held by a stranger."""
STOP_LEASES: Final = 1.5
LOCK_LEASES: Final = 0.25
AIMED: Final = 10


class Fault(NamedTuple):
    """One fault: it was ordered at `at`, in effect from `since`, and over at `until`. `worker` is the one that it hit.

    `blocks` says that the worker was stopped while it held the store's write lock, so that nobody else could write.
    """

    kind: Kind
    at: int
    since: int
    until: int
    worker: str = ""
    blocks: bool = False


class Forecast:
    """Which faults come, by seed: in each round of twenty all kinds have their share, in a drawn order. That they find
    other things at work each time cannot be seeded.
    """

    def __init__(self, seed: int, shares: Sequence[tuple[Kind, int]] = SHARES) -> None:
        self._kinds = random.Random(f"kinds of {seed}")
        self._victims = random.Random(f"victims of {seed}")
        self._shares = shares
        self._drawn: list[Kind] = []
        self._stops = 0

    def kind(self) -> Kind:
        """The next fault."""
        if not self._drawn:
            self._drawn = [kind for kind, share in self._shares for _ in range(share)]
            self._kinds.shuffle(self._drawn)
        return self._drawn.pop()

    def victim(self, among: Sequence[int]) -> int:
        """Which one it hits."""
        return self._victims.choice(sorted(among))

    def aims(self) -> bool:
        """Whether the next stop is to hit a worker that holds the store's write lock: every tenth one is, and others do
        by chance. With more of them the storm would be a calm: nobody writes meanwhile.
        """
        self._stops += 1
        return self._stops % AIMED == 1


def holds_write_lock(pid: int) -> bool:
    """Whether a stopped process holds the write lock of a SQLite file with a log, as the kernel tells of each of its
    open files: it is one byte of the file beside the log.

    The kernel's list of all locks would not do: while others lock and unlock, an entry may be left out of it.
    """
    told = (info.read_text(encoding="ascii") for info in Path(f"/proc/{pid}/fdinfo").iterdir())
    locks = (line.split() for text in told for line in text.splitlines() if line.startswith("lock:"))
    return any(words[2] == "POSIX" and words[4] == "WRITE" and words[7] == WRITE_LOCK for words in locks)


WRITE_LOCK: Final = "120"


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process has come to a halt."""
    return all(_status(task) in "TX" for task in Path(f"/proc/{pid}/task").iterdir())


def _status(task: Path) -> str:
    try:
        return (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"  # it has just ended


def late_spans(file: Path) -> list[Span]:
    """When the machine came late, as the watcher has noted it."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [(int(since), int(until)) for since, until in (line.split() for line in lines)]


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same time, without counting any of it twice."""
    whole: list[Span] = []
    for since, until in sorted(spans):
        if whole and since <= whole[-1][1]:
            whole[-1] = whole[-1][0], max(until, whole[-1][1])
        else:
            whole.append((since, until))
    return whole


def within(spans: Sequence[Span], since: float, until: float) -> Sequence[Span]:
    """Those of spans in order, none of which overlaps another, that touch a time."""
    return spans[bisect_left(spans, since, key=_end) : bisect_right(spans, until, key=_begin)]


def _begin(span: Span) -> int:
    return span[0]


def _end(span: Span) -> int:
    return span[1]


def overlap(spans: Iterable[Span], since: float, until: float) -> float:
    """How many seconds of a time the spans cover."""
    return sum(max(0.0, min(until, b) - max(since, a)) for a, b in joined(spans)) / 1e6
