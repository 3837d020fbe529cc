"""How long things last in truth, whatever clocks were set to: sleeps, limits of waits, backoffs and delays.

Programs tell when they begin something that lasts, and when it is over. Where there is one clock, nothing is over early
unless that was set further ahead than it was in the beginning, and nothing is put off because it was set back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from stepwell.domain.outcome import NEVER
from stepwell.domain.retry import jitter
from stepwell.domain.run import QUEUED, WAITING
from stepwell.stores.memory.runs import Row
from tests.simulation.plans import Plan
from tests.simulation.programs import LONGEST, RETRY

_LOOK: Final = 0.002
"""Seconds between two looks at two clocks, which no rule can tell from a clock that was set."""
_AFTERTHOUGHT: Final = 0.5
_ON_ITS_WAY: Final = 0.15
"""Seconds between a client's decision and the request that tells the store; and those that an answer takes."""
_PATIENCE: Final = 10.0
"""Seconds in which workers that nothing hits look at everything that is due, many times."""


class Since(NamedTuple):
    """A moment of the simulation, in seconds, and by how much the clock was off in it."""

    at: float
    off: float


@dataclass(slots=True)
class _Length:
    """What lasts for so many seconds. It may be begun again until it is `told` in the journal."""

    since: Since
    seconds: float
    told: bool = False


class Lengths:
    """What lasts since when, by the time of the simulation. `breaks` is told which promise was broken, and how."""

    def __init__(self, plan: Plan, now: Callable[[], float], breaks: Callable[[str, str], None]) -> None:
        self._one_clock = plan.has_one_clock
        self._now = now
        self._breaks = breaks
        self._off = 0.0
        self._set: list[Since] = []
        self._set_ahead: list[Since] = []
        self._lengths: dict[str, dict[str, _Length]] = {}
        self._failed: dict[str, Since] = {}
        self._asked: dict[int, Since | None] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        self._steady = 0.0
        self._excused: set[str] = set()
        self._crossed: set[str] = set()

    def set_clock(self, off: float) -> None:
        """The one clock was set, and is off by so much now."""
        is_ahead, self._off = off > self._off, off
        self._set.append(self._here)
        if is_ahead:
            self._set_ahead.append(self._here)

    @property
    def _here(self) -> Since:
        return Since(self._now(), self._off)

    def early(self, since: Since | None, seconds: float) -> float:
        """By how many seconds it is too early for what lasts so long since then: 0 if it is not, or the clock was set
        ahead meanwhile, to anything but what it was in the beginning.
        """
        if since is None or not self._one_clock:
            return 0.0
        if any(at >= since.at and abs(off - since.off) > _LOOK for at, off in self._set_ahead):
            return 0.0
        early = since.at + seconds - self._now()
        return early if early > _LOOK else 0.0

    # ------------------------------------------------------------ what programs and clients tell

    def begins(self, run_id: str, mark: str, seconds: float) -> None:
        """Something begins to last, or an attempt comes to it again."""
        lengths = self._lengths.setdefault(run_id, {})
        if mark not in lengths or not lengths[mark].told:
            lengths[mark] = _Length(self._here, seconds)

    def opened(self, run_id: str, seconds: float, ahead: float) -> None:
        """The journal of the run tells of something that lasts so long: from now on no attempt begins it again. It is
        over so many seconds ahead of the clock: if that is more, the clock was set back since it was decided.
        """
        if ahead > seconds + _LOOK:
            self._crossed.add(run_id)
        for length in self._lengths.get(run_id, {}).values():
            if not length.told and length.seconds == seconds:
                length.told = True
                return

    def is_over(self, run_id: str, mark: str) -> None:
        """It has lasted, or so it seems."""
        length = self._lengths[run_id][mark]
        early = self.early(length.since, length.seconds)
        if length.told and early:
            self._breaks("P10", f"{mark} was to last {length.seconds:g} s, and was over {early:g} s before")

    def fails(self, run_id: str) -> None:
        """An attempt is about to fail, and another to follow after a backoff."""
        self._failed[run_id] = self._here

    def asks(self, number: int) -> None:
        """A client is about to start that run. Of one who asks again nobody can tell which time it was that counted."""
        self._asked[number] = None if number in self._asked else self._here

    def start_of(self, number: int, delay: float) -> tuple[Since | None, float]:
        """Since when the start of a run is put off, and by how much."""
        return self._asked.get(number), delay

    def next_attempt_of(self, run_id: str, errors: int) -> tuple[Since | None, float]:
        """Since when the attempt after that many errors is put off, and by how much."""
        return self._failed.get(run_id), RETRY.delay(errors, jitter(run_id, "attempt", str(errors)))

    # ------------------------------------------------------------ what is put off

    def decided(self, row: Row, ahead: float, asked_at: float, claimed_at: float) -> None:
        """A write that was asked for at a moment says that a run is due so many seconds ahead of the clock. That it
        was set back since the decision is an excuse, or while a claim was on its way, after which nobody can tell.
        """
        self._excused.discard(row.run.id)
        if self._one_clock and ahead > LONGEST + _LOOK:
            before = asked_at - (_ON_ITS_WAY if row.run.life.attempt else _AFTERTHOUGHT)
            crossed = any(at >= before or claimed_at <= at <= claimed_at + _ON_ITS_WAY for at, _ in self._set)
            if crossed or row.run.id in self._crossed:
                self._excused.add(row.run.id)
            else:
                self._breaks(
                    "P10", f"a run of {row.run.agent} is put off by {ahead:g} s; nothing lasts over {LONGEST:g} s"
                )

    def keeps_all(self, rows: Iterable[Row]) -> bool:
        """Whether there is no excuse for any run that is put off."""
        return self._one_clock and not any(row.run.id in self._excused and not row.run.life.ended for row in rows)

    def look(self, rows: Iterable[Row], wall: int, *, steady: bool) -> str | None:
        """Why some run is put off for longer than anything lasts, in a world of one clock. `wall` is what that says;
        `steady` says whether every worker is at work.
        """
        now = self._now()
        if not steady or not self._one_clock:
            self._steady = now
        for row in rows:
            life = row.run.life
            if life.status not in (QUEUED, WAITING) or life.hold or not wall < life.available_at < NEVER:
                self._seen.pop(row.run.id, None)
                continue
            if self._seen.get(row.run.id, (0, 0.0))[0] != life.seq:
                self._seen[row.run.id] = life.seq, now
            since = max(self._steady, self._seen[row.run.id][1])
            if row.run.id not in self._excused and now - since > _PATIENCE:
                later = (life.available_at - wall) / 1e6
                return f"is due in {later:g} s, {now - since:g} s after it was let go; nothing lasts over {LONGEST:g} s"
        return None
