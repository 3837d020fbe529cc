"""Everything that can happen to a run as it is stored, each thing computed once by the real transitions, and checked.

Runs as stored are numbered; who holds a lease of them, and what late writers do, is in `runs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from stepwell.domain import transitions
from stepwell.domain.errors import Conflict, LeaseLost
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Payload, Retrying
from stepwell.domain.run import PAUSED
from stepwell.domain.transitions import Change, ClaimCause
from tests.protocol.core import ENDED_CHILD, FENCE, LATER, NOW, TIMEOUT, Bounds, Core, canonical
from tests.protocol.explorer import Broken
from tests.protocol.messages import SENT, WAITS, Beside, Message, beside, step_completed
from tests.protocol.promises import (
    check_change,
    check_claim,
    check_counters,
    check_outcome,
    check_run,
    expect,
    is_due,
)
from tests.protocol.refusals import CHILD, CHILD_END, Refusals

PAUSES, RESUMES = 4, 8
"""What a request means for a child."""


class Move(NamedTuple):
    """Something that happens to the core: `told` says that events were written, `raised` that the fence was."""

    label: int
    core: int
    told: bool
    raised: bool
    news: int = 0


class Landing(NamedTuple):
    """What becomes of a write: refused, or written (perhaps before)."""

    label: int
    core: int
    refused: bool


class Stored:
    """The runs of one world as they are stored: all that were met, by number, and what happens to them."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.cores: list[Core] = []
        self.labels: list[str] = []
        self._core_ids: dict[Core, int] = {}
        self._label_ids: dict[tuple[str, bool], int] = {}
        self._moves: dict[int, list[Move]] = {}
        self._claims: dict[tuple[int, bool], list[Move]] = {}
        self._refusals = Refusals(bounds)

    def start(self, *, hooked: bool, delayed: bool = False) -> int:
        """A run that was just submitted."""
        change = transitions.submit(
            agent="a",
            version="1",
            trigger=None,
            input_field='"input":1',
            priority=0,
            available_at=LATER if delayed else NOW,
            now=NOW,
        )
        nothing = change.life
        life, entries = transitions.number(nothing, change, NOW)
        expect([entry.seq for entry in entries] == [1], "P6: a run begins with its first event")
        return self._core(Core(life, hooked))

    def label(self, text: str, *, helps: bool = False) -> int:
        """The number of a label; odd when what it names brings a run nearer to its end."""
        key = text, helps
        if key not in self._label_ids:
            self._label_ids[key] = 2 * len(self.labels) + helps
            self.labels.append(text)
        return self._label_ids[key]

    def _core(self, core: Core) -> int:
        """The number of a run as stored. A new one is checked."""
        check_run(core)
        small = canonical(core)
        found = self._core_ids.get(small)
        if found is None:
            found = self._core_ids[small] = len(self.cores)
            self.cores.append(small)
            self._refusals.check(small.life)
        return found

    # ------------------------------------------------------------ what happens to what is stored

    def _apply(self, core: Core, change: Change, what: str, **beside: Any) -> tuple[int, bool, bool]:
        """Number and check a change, and give the core after it, whether it tells anything and raises the fence."""
        before = core.life
        life, entries = transitions.number(before, change, NOW)
        try:
            check_change(before, life, entries)
            if life.ended and not before.ended:
                beside |= {"waits": "", "kept": 0}
            after = self._core(core._replace(life=life, **beside))
        except Broken as broken:
            raise Broken(f"{broken} [{what}]") from None
        return after, bool(entries), life.fence != before.fence

    def outside(self, number: int) -> list[Move]:
        """What others do to the run, and time."""
        if number not in self._moves:
            core = self.cores[number]
            causes = (self._requests, self._arrivals, self._time)
            self._moves[number] = [] if core.life.ended else list(chain.from_iterable(each(core) for each in causes))
            if core.life.dead:
                self._moves[number] = [self._discarded(core)]
        return self._moves[number]

    def _move(self, core: Core, change: Change, what: str, *, helps: bool = False, **beside: Any) -> Move:
        return Move(self.label(what, helps=helps), *self._apply(core, change, what, **beside))

    def _discarded(self, core: Core) -> Move:
        return self._move(core, transitions.discard(core.life, by="ann"), "ann discards the run")

    def _requests(self, core: Core) -> Iterator[Move]:
        life, bounds = core.life, self.bounds
        if bounds.cancels:
            cancel = self.cancelled(core, "ann cancels the run")
            if cancel is not None:
                yield cancel
        if bounds.pauses:
            pause = self.paused(core)
            if pause is not None:
                yield pause._replace(news=PAUSES)
        if life.pausing or life.hold:
            yield from (move._replace(news=RESUMES) for move in self._resumed(core))

    def cancelled(self, core: Core, what: str) -> Move | None:
        """Somebody asks for an end."""
        life = core.life
        change, answer = transitions.cancel(life, by="ann", reason=None, has_hook=core.hooked, now=NOW)
        if change is None:
            expect(answer == ("already_ended" if life.ended else "cancelling"), f"the answer {answer} is true")
            expect(bool(life.ended or life.cancelling), "P10: a cancel that changes nothing was asked for before")
            return None
        after = change.life
        forced = answer == "cancelled"
        check_counters(life, after, what, fence=int(forced))
        shown = "cancelled" if forced else "running" if life.status == "running" else "queued"
        expect(after.status == shown, f"the answer {answer} is true")
        expect(forced or bool(after.cancelling), f"the answer {answer} is true")
        expect(
            forced == (life.status != "running" and not (core.hooked and life.attempt)),
            "a cancel ends at once what nobody executes, but for a clean-up",
        )
        cleaning = core.cleaning or life.status == "running"
        return self._move(core, change, what, unread=core.unread and not after.ended, cleaning=cleaning)

    def paused(self, core: Core) -> Move | None:
        """Somebody asks for a pause."""
        life = core.life
        change = transitions.pause(life, by="ann", now=NOW)
        if change is None:
            expect(bool(life.hold or life.pausing or life.cancelling), "P10: a pause takes effect or was asked for")
            return None
        check_counters(life, change.life, "a pause")
        expect(
            bool(change.life.pausing) if life.status == "running" else change.life.hold == "paused",
            "a pause sets the run aside, or asks its holder to",
        )
        return self._move(core, change, "ann pauses the run")

    def _resumed(self, core: Core) -> Iterator[Move]:
        life = core.life
        steps = core.steps + 1
        done = (step_completed(steps),) if steps <= self.bounds.steps else ()
        ways = [("rerun", ()), ("done", done)] if life.hold == "in_doubt" else [(None, ())]
        for verdict, drafts in ways:
            yield self.resumed(core, verdict, drafts)
        wrong = None if life.hold == "in_doubt" else "rerun"
        try:
            transitions.resume(life, by="ann", drafts=(), verdict=wrong, now=NOW)
        except Conflict:
            return
        raise Broken("P2: what is in doubt is settled by a verdict, and nothing else is")

    def resumed(self, core: Core, verdict: str | None = None, drafts: tuple[Draft, ...] = ()) -> Move:
        """Somebody lifts the hold, or takes back the pause."""
        life = core.life
        change = transitions.resume(life, by="ann", drafts=drafts, verdict=verdict, now=NOW)
        after = change.life
        check_counters(life, after, "a resume")
        expect(not (after.hold or after.pausing), "P10: a resumed run is not held")
        expect(after.status == life.status, "a resumed run waits if it did, else it is queued")
        again = life.status == "queued" and bool(life.attempt)
        expect(
            after.available_at == (min(life.available_at, NOW) if again and life.hold else life.available_at),
            "a resumed run is due at once, or at its time",
        )
        what = f"ann resumes the run{f' ({verdict})' if verdict else ''}"
        return self._move(core, change, what, helps=True, steps=core.steps + len(drafts))

    def _arrivals(self, core: Core) -> Iterator[Move]:
        life = core.life
        if "s" in core.waits:
            yield self._closed(core, "s", "a signal arrives")
        elif "s" in self.bounds.waits and core.kept < self.bounds.kept:
            change = transitions.received(life, SENT, now=NOW)
            check_counters(life, change.life, "a signal")
            expect(change.life == life, "a signal that nobody waits for wakes nobody")
            yield self._move(core, change, "a signal arrives early", helps=True, kept=core.kept + 1)
        if "q" in core.waits:
            yield self._closed(core, "q", "ann answers")

    def _closed(self, core: Core, letter: str, what: str) -> Move:
        """An arrival closes a wait."""
        waits, life, wait = core.waits.replace(letter, ""), core.life, WAITS[letter]
        wakes = not (self.bounds.joined and waits)
        if letter == "s":
            change = transitions.received(life, SENT, now=NOW, wait=wait, wakes=wakes)
        elif letter == "q":
            change = transitions.answered(life, wait, Payload("1"), by="ann", now=NOW, wakes=wakes)
        check_counters(life, change.life, what)
        return self._move(core, change, what, helps=True, waits=waits, unread=core.unread or wakes)

    def child_ended(self, core: Core) -> Move | None:
        """The child has ended, and the parent learns it."""
        waits, life = core.waits.replace("c", ""), core.life
        wakes = "c" in core.waits
        change = transitions.child_ended(life, CHILD, CHILD_END, now=NOW, wakes=wakes)
        if life.ended:
            expect(change is None, "P5: a run that has ended learns nothing")
            return None
        if change is None:
            raise Broken("P6: a parent that lives is told the end of its child")
        check_counters(life, change.life, "the end of a child")
        return self._move(
            core, change, "the parent learns it", waits=waits, unread=core.unread or wakes, child=ENDED_CHILD
        )

    def _time(self, core: Core) -> Iterator[Move]:
        life = core.life
        if life.available_at == LATER:
            later = Change(life._replace(available_at=NOW), ())
            yield self._move(core, later, "its time comes", helps=True)
        limit = transitions.overdue(life, timeout=TIMEOUT, deadline=None, now=NOW)
        spent = life.status != "running" and life.leased >= TIMEOUT
        expect((limit is not None) == spent, "a run that nobody executes ends when its leased time is used up")
        if limit is not None:
            yield self._over(core, limit, "the round ends it: timeout", helps=True)
        if self.bounds.limits:
            passed = transitions.overdue(life, timeout=TIMEOUT, deadline=NOW, now=NOW)
            expect(passed == "deadline", "a deadline ends whatever has not ended")
            yield self._over(core, "deadline", "the round ends it: deadline")

    def _over(self, core: Core, limit: str, what: str, *, helps: bool = False) -> Move:
        change = transitions.time_out(core.life, limit, NOW)
        check_counters(core.life, change.life, what, fence=1)
        expect(change.life.status == "timed_out", f"{what}: it is timed out then")
        return self._move(core, change, what, helps=helps, unread=False)

    def by_relatives(self, core: Core, cause: str) -> Move | None:
        """What a change of the parent or the child brings with it, if anything."""
        if cause == "cancel":
            return self.cancelled(core, "its parent has ended")
        if cause == "child ended":
            return self.child_ended(core)
        if core.life.ended or (cause == "resume" and core.life.hold != PAUSED and not core.life.pausing):
            return None
        return self.paused(core) if cause == "pause" else self.resumed(core)

    # ------------------------------------------------------------ claims

    def takings(self, number: int, dead: bool) -> list[Move]:
        """What a claim makes of the run: `dead` says that its holder's death can be proven."""
        key = number, dead
        if key not in self._claims:
            core, found = self.cores[number], list[Move]()
            life = core.life
            spent = transitions.overdue(life, timeout=TIMEOUT, deadline=None, now=NOW) is not None
            if is_due(life) and not spent:
                found.append(self._claimed(core, "due", helps=True))
            if life.status == "running":
                found.append(self._claimed(core, "expired", helps=dead))
                found += [self._claimed(core, "lost", helps=True)] if dead else []
            self._claims[key] = found
        return self._claims[key]

    def _claimed(self, core: Core, cause: ClaimCause, *, helps: bool) -> Move:
        what = {"due": "a claim", "expired": "a claim: the lease ran out", "lost": "a claim: its worker is dead"}[cause]
        change = transitions.claim(core.life, worker="w2", cause=cause, now=NOW)
        check_claim(core, change.life, cause, self.bounds)
        cleaning = core.cleaning or bool(core.life.cancelling)
        runs = change.life.status == "running"
        fresh = not runs and (core.fresh or cause == "lost")
        return self._move(
            core, change, what, helps=helps, fresh=fresh, unread=core.unread and not runs, cleaning=cleaning
        )

    # ------------------------------------------------------------ writes

    def write(self, number: int, message: Message, *, current: bool, again: bool) -> Landing:
        """A write reaches the store: of the newest lease or an older one, for the first time or again."""
        core = self.cores[number]
        life, fence = core.life, FENCE if current else FENCE - 1
        who = "the lease holder" if current else "a zombie"
        what = f"{who} writes{' again' if again else ''}: {message.name}"
        joined = self.bounds.joined and bool(message.opens)
        following = life.commit_no + 1 if current and not again else 1
        write = message.commit(following, joined=joined)
        try:
            change = transitions.commit(life, write, fence=fence, now=NOW, has_hook=core.hooked)
        except LeaseLost:
            expect(not (current and again), f"a write that landed is acknowledged again [{what}]")
            expect(not (current and life.status == "running"), f"P3: the holder may write [{what}]")
            return Landing(self.label(f"{what} (refused)", helps=current), number, refused=True)
        expect(current, f"P3: no write with an old fence is accepted [{what}]")
        if again:
            expect(change.life is life and not change.drafts, f"P2: a write that is repeated is written once [{what}]")
            return Landing(self.label(what), number, refused=False)
        expect(change.life is not life, f"P1: what is acknowledged is written [{what}]")
        return self._accept(core, message, what, fence, beside(core, message, write, joined))

    def _accept(self, core: Core, message: Message, what: str, fence: int, told: Beside) -> Landing:
        life = core.life
        change = transitions.commit(life, told.write, fence=fence, now=NOW, has_hook=core.hooked)
        expect(life.status == "running", f"P3: only the holder of a lease writes [{what}]")
        expect(not message.step or message.step > core.steps, f"P2: a finished step is committed once [{what}]")
        expect(change.life.commit_no == told.write.number, f"P2: a write that landed is remembered [{what}]")
        outcome = told.write.outcome
        if outcome is None:
            check_counters(life, change.life, what, losses=-1)
        else:
            check_outcome(core, change.life, outcome, overslept=not message.fresh)
        read = message.parks() and message.fresh
        noted = {
            "steps": max(core.steps, message.step),
            "waits": told.waits,
            "kept": told.kept,
            "child": told.child,
            "unread": (core.unread and not read) or told.missed,
            "fresh": core.fresh or (isinstance(outcome, Retrying) and not life.cancelling),
        }
        if life.cancelling and outcome is not None and not change.life.ended:
            noted["cleaning"] = False  # the attempt had not heard of the cancel, or it would have said so
        after, _, raised = self._apply(core, change, what, **noted)
        expect(not raised, f"the fence stays when the lease is given back [{what}]")
        return Landing(self.label(what, helps=True), after, refused=False)
