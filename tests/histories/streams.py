"""What readers of a run's events were given, who come back again and again with the last number they have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from tests.histories.history import Violation

LAST: Final = frozenset({"run.succeeded", "run.failed", "run.cancelled", "run.timed_out", "run.exhausted"})
AFTERWARDS: Final = frozenset({"run.discarded"})
"""What may be written after the end."""


class StreamBroken(Violation):
    """A reader was given something twice, or not at all, or not what others were given."""


class Visit(NamedTuple):
    """One connection of a reader: it asked for what comes after a number and was given events as (number, what it is).

    `ended` says that the stream ended by itself, not because the reader or the process at its other end went away.
    """

    reader: str
    run: str
    after: int
    events: tuple[tuple[int, str], ...]
    ended: bool = False


def check_streams(visits: Iterable[Visit]) -> None:
    """Raise `StreamBroken` unless every reader got 1, 2, 3 and so on, all got the same under the same number, and no
    stream ended by itself before the end of its run. The visits of a reader stand in their order.
    """
    known: dict[tuple[str, int], str] = {}
    had: defaultdict[tuple[str, str], int] = defaultdict(int)
    for visit in visits:
        who = visit.reader, visit.run
        if visit.after != had[who]:
            raise StreamBroken(f"{visit.reader} has {had[who]} events of {visit.run} and asks after {visit.after}")
        for number, what in visit.events:
            if number != had[who] + 1:
                raise StreamBroken(f"{visit.reader} got event {number} of {visit.run} after {had[who]}")
            had[who] = number
            if known.setdefault((visit.run, number), what) != what:
                raise StreamBroken(f"event {number} of {visit.run} is {known[visit.run, number]!r}, and {what!r}")
        if visit.ended:
            _check_end(visit, known, had[who])


def _check_end(visit: Visit, known: dict[tuple[str, int], str], had: int) -> None:
    kinds = [known[visit.run, number].partition(" ")[0] for number in range(1, had + 1)]
    ends = [kind for kind in kinds if kind in LAST]
    if len(ends) != 1:
        raise StreamBroken(f"the stream of {visit.run} ended with {ends or 'no end'} in it: {kinds[-3:]}")
    if set(kinds[kinds.index(ends[0]) + 1 :]) - AFTERWARDS:
        raise StreamBroken(f"{visit.run} went on after its end: {kinds[-3:]}")


def check_whole(visits: Iterable[Visit], lengths: dict[str, int]) -> None:
    """When all runs have ended: whoever followed a run to its end got as many events as it has."""
    got: defaultdict[tuple[str, str], int] = defaultdict(int)
    done: set[tuple[str, str]] = set()
    for visit in visits:
        who = visit.reader, visit.run
        got[who] = max([got[who], *(number for number, _ in visit.events)])
        if visit.ended:
            done.add(who)
    for reader, run in done:
        late = lengths[run] - got[reader, run]
        if late not in (0, 1):  # a discard may be told afterwards
            raise StreamBroken(f"{reader} followed {run} to its end with {got[reader, run]} of {lengths[run]} events")
