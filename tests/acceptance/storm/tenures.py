"""Who held a run in a storm, from when to when; and whether a fault explains that the run was taken from its holder.

Read from the journal, past all of Stepwell's code. That the journal says that a lease had run out, or that a worker had
died, is the product's own word and explains nothing: a fault of that very worker does, or that nobody could write or
run for most of a lease.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tests.acceptance.audit import ENDS
from tests.acceptance.fleet import looking_at
from tests.acceptance.storm.weather import Fault, Span, joined, overlap, within

CLAIMS: Final = ("run.started", "run.resumed")
LOST: Final = "run.lost"
HANDED_BACK: Final = "run.handed_back"
LEFT: Final = (HANDED_BACK, "run.waiting", "run.held", "run.retrying")
SHARE_TO_TAKE: Final = 1 / 2
"""Of a lease: a worker that could not write or run for that part of it may lose it. It renews it three times over, so
that it takes two thirds when nothing else is slow."""
SHARE_TO_GIVE: Final = 1 / 4
"""The same for a worker that gives a run back because it no longer trusts its own lease: it does so before it ends."""
WRITE: Final = 100_000
"""A write looks at leases and deaths at most so long, in microseconds, after the moment that it tells; unless it is
stopped, or waits for the lock, in between."""


@dataclass
class Tenure:
    """A run in the hands of a worker, until it let go of it, ended it or lost it in its step number `step`, counted
    from 0. `progress` is when it wrote.
    """

    worker: str
    since: int
    until: float = math.inf
    how: Literal["", "let go", "handed back", "taken"] = ""
    step: int = 0
    progress: list[int] = field(default_factory=list)

    @property
    def taken(self) -> bool:
        return self.how == "taken"

    def end(self, at: int, how: Literal["let go", "handed back", "taken"], step: int) -> None:
        if self.until == math.inf:
            self.until, self.how, self.step = at, how, step


@dataclass
class History:
    """The tenures of a run, in their order."""

    tenures: list[Tenure] = field(default_factory=list)

    @property
    def progress(self) -> list[int]:
        return [at for tenure in self.tenures for at in tenure.progress]


def histories_of(database: Path) -> dict[str, History]:
    """The history of each run that was ever claimed."""
    histories: defaultdict[str, History] = defaultdict(History)
    done: Counter[str] = Counter()
    for run, at, kind, worker in _facts(database):
        tenures = histories[run].tenures
        if tenures and kind in (*CLAIMS, LOST):
            tenures[-1].end(at, "taken", done[run])
        if kind in CLAIMS:
            tenures.append(Tenure(worker, at))
        elif tenures and kind != LOST and (kind == "step.completed" or kind in ENDS or kind in LEFT):
            done[run] += kind == "step.completed"
            tenures[-1].progress.append(at)
            if kind != "step.completed":
                tenures[-1].end(at, "handed back" if kind == HANDED_BACK else "let go", done[run])
    return histories


def _facts(database: Path) -> list[Any]:
    with looking_at(database) as db:
        return db.execute(
            "select id, at, kind, data ->> '$.worker' from journal join run on run.n = journal.run"
            " where kind <> 'run.queued' order by journal.run, journal.seq"
        ).fetchall()


class Causes:
    """The faults of a storm, as causes of what became of runs."""

    def __init__(self, lease: float, faults: Iterable[Fault], late: Sequence[Span]) -> None:
        self._lease = lease * 1e6
        self._late = joined(late)
        self._of: defaultdict[str, list[Fault]] = defaultdict(list)
        held: list[Span] = []
        for fault in faults:
            if fault.kind != "lock":
                self._of[fault.worker].append(fault)
            if fault.kind == "lock" or fault.blocks:
                held.append((fault.at, fault.until))
        self._held = joined(held)
        """When somebody else than its users held the write lock."""

    def explain(self, tenure: Tenure) -> bool:
        """Whether a fault explains that a worker lost a run, or gave it back: it was killed before, or stopped within
        the last lease; or nobody could write or run for a large part of that lease.
        """
        by = self._settled(tenure.until)
        for fault in self._of[tenure.worker]:
            if fault.at <= by and (fault.kind == "kill" or fault.until >= tenure.until - self._lease):
                return True
        since = by - self._lease
        share = SHARE_TO_TAKE if tenure.taken else SHARE_TO_GIVE
        excused = [*within(self._held, since, by), *within(self._late, since, by)]
        return overlap(excused, since, by) * 1e6 >= share * self._lease

    def _settled(self, at: float) -> float:
        """When a write that tells this moment had looked at leases and deaths, at the latest."""
        by = at + WRITE
        return max([by, *(until + WRITE for _, until in within(self._held, at, by))])
