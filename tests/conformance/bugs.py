"""Stores with one bug each, made of the memory store. The suite must find every one."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from stepwell.domain import transitions
from stepwell.domain.commit import Commit
from stepwell.domain.event import Draft
from stepwell.domain.lane import GRANTED, Entrant, Room
from stepwell.domain.outcome import Outcome, Parked, Payload
from stepwell.domain.run import RUNNING, Lease, RunRecord
from stepwell.domain.session import SessionValue, SessionWrite
from stepwell.domain.submission import Lane, Submission
from stepwell.domain.transitions import Change, ClaimCause
from stepwell.domain.wait import ANSWERED, TIMED_OUT, Signal, WaitRecord
from stepwell.ports.clock import Clock
from stepwell.ports.store import Blockage, ClaimRequest, Claims, Committed, Control, Heartbeat, RunQuery, Submitted
from stepwell.stores.memory.claims import Round
from stepwell.stores.memory.lanes import Lanes
from stepwell.stores.memory.runs import Row
from stepwell.stores.memory.sessions import Sessions
from stepwell.stores.memory.store import MemoryStore
from stepwell.stores.memory.waits import Signals, Waits
from stepwell.stores.memory.writing import Writing

# ---------------------------------------------------------------- queue, journal, workers


class RoundThatBelievesTheClock(Round):
    def make_up(self) -> None:
        return


class IsPutOffByTheClock(MemoryStore):
    """Lets a clock that is set back put off what is due."""

    def _round(self, writing: Writing, request: ClaimRequest) -> Round:
        return RoundThatBelievesTheClock(self._tables, writing, request, elapsed=self._clock.elapsed())


class RoundThatMakesUpForGood(Round):
    def make_up(self) -> None:
        for row, life in self._runs.put_off(self._now):
            if life.made_up:
                self._writing.apply(row, Change(life, ()))


class MakesUpForGood(MemoryStore):
    """A clock that was wrong for a moment makes a delay shorter for good."""

    def _round(self, writing: Writing, request: ClaimRequest) -> Round:
        return RoundThatMakesUpForGood(self._tables, writing, request, elapsed=self._clock.elapsed())


class LanesOfTheOldClock(Lanes):
    def place_again(self, run_id: str) -> None:
        return


class IsOvertakenInLine(MemoryStore):
    """Runs that stand in line since before a clock was set back go last."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._tables.lanes = LanesOfTheOldClock(self._runs)


class ChecksNoFence(MemoryStore):
    """Whoever writes is taken for the holder."""

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        return await super().commit(lease._replace(fence=self._row(lease.run_id).run.life.fence), write)


class LooksForKeysTooEarly(MemoryStore):
    """Asks whether the key is known, and creates the run a moment later without asking again."""

    async def submit(self, submission: Submission) -> Submitted:
        known = self._door._named_by_key(submission)
        await asyncio.sleep(0)
        if known is not None:
            return Submitted(known.run, created=False, lease=None)
        self._door._keys.clear()
        return await super().submit(submission)


class SubmitsTwice(MemoryStore):
    """Makes a run anew when its submission is repeated."""

    async def submit(self, submission: Submission) -> Submitted:
        self._runs.rows.pop(submission.id, None)
        return await super().submit(submission)


class RoundWithoutLosses(Round):
    """Takes every lost run for one whose lease ran out."""

    def lost(self) -> list[tuple[Row, ClaimCause]]:
        return [(row, "expired") for row, _ in super().lost()]


class RaisesNoAttempt(MemoryStore):
    """The death of a worker counts as nothing."""

    def _round(self, writing: Writing, request: ClaimRequest) -> Round:
        return RoundWithoutLosses(self._tables, writing, request, elapsed=self._clock.elapsed())


class WritesTwice(MemoryStore):
    """Does not recognise a commit that had landed."""

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        number = self._row(lease.run_id).run.life.commit_no + 1
        return await super().commit(lease, write._replace(number=max(number, write.number)))


class ForgetsFacts(MemoryStore):
    """Ends an attempt without the facts that came with the outcome."""

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        return await super().commit(lease, write._replace(drafts=() if write.outcome else write.drafts))


class HoldsForEverybody(MemoryStore):
    """Tells each worker that it holds everything that anybody holds."""

    def heartbeat(self, worker_id: str, *, lease_seconds: float) -> Heartbeat:
        answers = [super(HoldsForEverybody, self).heartbeat(id_, lease_seconds=lease_seconds) for id_ in self._all()]
        return Heartbeat({run_id: held for answer in answers for run_id, held in answer.held.items()})

    def _all(self) -> list[str]:
        return [info.id for info in self._workers.alive()]


class ForgetsLimits(MemoryStore):
    """Ends no run that is past its deadline."""

    async def submit(self, submission: Submission) -> Submitted:
        return await super().submit(submission._replace(deadline=None))


class IgnoresTheLimit(MemoryStore):
    """Gives a worker more than it asked for."""

    async def claim(self, request: ClaimRequest) -> Claims:
        return await super().claim(replace(request, limit=request.limit + 1))


class TakesHeldRuns(MemoryStore):
    """Lifts every hold as soon as anybody looks for work."""

    async def claim(self, request: ClaimRequest) -> Claims:
        for row in list(self._runs.rows.values()):
            life = row.run.life
            if life.hold is not None:
                verdict = "rerun" if life.hold == "in_doubt" else None
                await self.resume(row.run.id, at_seq=life.seq, by="nobody", verdict=verdict)
        return await super().claim(request)


class ShowsTenantsToEachOther(MemoryStore):
    """Reads whatever is asked for."""

    async def get(self, run_id: str, *, tenant: str = "") -> RunRecord:
        return self._row(run_id).run


class ListsTheOldestFirst(MemoryStore):
    """Lists in the order of submission."""

    async def find(self, query: RunQuery) -> list[RunRecord]:
        return (await super().find(query))[::-1]


class ChargesTheWallClock(MemoryStore):
    """Charges a lost lease with the time since its claim."""

    async def claim(self, request: ClaimRequest) -> Claims:
        now = self._clock.now()
        for row in self._runs.rows.values():
            life = row.run.life
            if life.status == RUNNING:
                row.run = row.run._replace(life=life._replace(held=max(0, now - life.claimed_at)))
        return await super().claim(request)


class MakesNoDifferenceOfSuspects(MemoryStore):
    """Gives suspects to whoever asks."""

    async def claim(self, request: ClaimRequest) -> Claims:
        return await super().claim(replace(request, suspects="any"))


# ---------------------------------------------------------------- waits


class Buggy(MemoryStore):
    """A store whose writes, or tables, are of another kind."""

    writing: type[Writing] = Writing
    waits: type[Waits] = Waits
    signals: type[Signals] = Signals
    sessions_: type[Sessions] = Sessions
    lanes_: type[Lanes] = Lanes

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._tables.waits, self._tables.signals = self.waits(), self.signals()
        self._tables.sessions, self._tables.lanes = self.sessions_(), self.lanes_(self._runs)

    def _begin(self) -> Writing:
        return self.writing(self._tables, self._clock.now())


class LosesWakeUpsAtParking(MemoryStore):
    """Does not look whether something came between the last look and the parking."""

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        if isinstance(write.outcome, Parked):
            write = write._replace(outcome=replace(write.outcome, at_seq=None))
        return await super().commit(lease, write)


class WritingThatSleepsOver(Writing):
    def _due_if_woken(self, outcome: Outcome | None, satisfied: Sequence[WaitRecord]) -> Outcome | None:
        return outcome


class SleepsOverWhatIsThere(Buggy):
    """A run that opens a wait and parks in one write sleeps, also when what it waits for is there."""

    writing = WritingThatSleepsOver


class LastInFirstOut(Signals):
    def take(self, run_id: str, name: str) -> str | None:
        kept = self._kept[run_id][name]
        return kept.pop() if kept else None


class TakesTheNewestSignal(Buggy):
    """Gives a wait the signal that came last."""

    signals = LastInFirstOut


class SignalsThatForget(Signals):
    def is_known(self, run_id: str, signal: Signal) -> bool:
        return False


class ReceivesAgain(Buggy):
    """Receives a signal as often as it is sent."""

    signals = SignalsThatForget


class SignalsThatAreLost(Signals):
    def keep(self, run_id: str, signal: Signal) -> None:
        """Nobody waits for it now."""


class LosesEarlySignals(Buggy):
    """Keeps no signal that nobody waits for yet."""

    signals = SignalsThatAreLost


class SignalsWithoutEnd(Signals):
    def keep(self, run_id: str, signal: Signal) -> None:
        self._kept[run_id][signal.name].append(signal.id)


class KeepsSignalsWithoutBound(Buggy):
    """Keeps as many signals as come."""

    signals = SignalsWithoutEnd


class WritingThatWakes(Writing):
    def receive(self, row: Row, signal: Signal) -> None:
        super().receive(row, signal)
        life = row.run.life
        if life.status == "waiting":
            self.apply(row, Change(life._replace(available_at=min(life.available_at, self.now)), ()))


class WakesForEverySignal(Buggy):
    """Wakes a run for a signal that it does not wait for."""

    writing = WritingThatWakes


class WaitsThatWakeAlone(Waits):
    def wakes(self, record: WaitRecord) -> bool:
        return True


class WakesAtEachOfAJoin(Buggy):
    """Wakes a run at each of the waits that are joined."""

    waits = WaitsThatWakeAlone


class WritingThatTimesOutAgain(Writing):
    def _expire(self, run: RunRecord, wait_ids: Sequence[str]) -> Iterator[Draft]:
        for wait_id in wait_ids:
            record = self._tables.waits.get(wait_id)
            if record is not None and record.outcome is None:
                self._tables.waits.close(wait_id, TIMED_OUT, now=self.now)
            if record is not None:
                yield transitions.expired(record.wait)


class TimesOutWhatWasClosed(Buggy):
    """Tells of a time that is over, also when something closed the wait before."""

    writing = WritingThatTimesOutAgain


class LetsTheLastAnswerWin(MemoryStore):
    """Takes an answer for a question that was answered."""

    async def answer(self, question_id: str, value: Payload, *, by: str, tenant: str = "") -> WaitRecord:
        record = self._question(question_id, tenant)
        if record.outcome == ANSWERED:
            self._tables.waits.open(record._replace(outcome=None, closed_at=None, by=None))
        return await super().answer(question_id, value, by=by, tenant=tenant)


class WritingThatLeavesWaitsOpen(Writing):
    def _end(self, row: Row, end: Draft) -> None:
        open_waits = self._tables.waits.open_of
        self._tables.waits.open_of = lambda run_id: []  # type: ignore[method-assign]
        super()._end(row, end)
        self._tables.waits.open_of = open_waits  # type: ignore[method-assign]


class LeavesWaitsOpen(Buggy):
    """Closes no wait at the end of a run."""

    writing = WritingThatLeavesWaitsOpen


# ---------------------------------------------------------------- families, requests


class WritingWithoutCascade(Writing):
    def cancel(self, row: Row, *, by: str, reason: str | None) -> transitions.CancelAnswer:
        return "already_ended" if by == "parent" else super().cancel(row, by=by, reason=reason)


class LeavesChildrenBehind(Buggy):
    """Cancels no child at the end of its parent."""

    writing = WritingWithoutCascade


class WritingWithoutMercy(Writing):
    def _end(self, row: Row, end: Draft) -> None:
        super()._end(row, end)
        for child in self._tables.runs.children(row.run.id):
            self.cancel(child, by="parent", reason=None)


class CancelsTheDetached(Buggy):
    """Cancels every child at the end of its parent."""

    writing = WritingWithoutMercy


class WritingThatTellsNobody(Writing):
    def _tell_parent(self, child: RunRecord, end: Draft) -> None:
        """Nobody is told."""


class TellsNoParent(Buggy):
    """Tells no parent that its child has ended."""

    writing = WritingThatTellsNobody


class WritingThatOnlyTells(Writing):
    def _tell_parent(self, child: RunRecord, end: Draft) -> None:
        row = self._tables.runs.rows.get(child.parent or "")
        if row is not None:
            change = transitions.child_ended(row.run.life, child, end, now=self.now, wakes=False)
            if change is not None:
                self.apply(row, change)


class WakesNoParent(Buggy):
    """Tells the parent, and leaves it asleep."""

    writing = WritingThatOnlyTells


class WritingThatOpensForTheEnded(Writing):
    def _has_ended(self, run_id: str) -> bool:
        return False


class WaitsForEndedChildren(Buggy):
    """Opens a wait for a child that has ended, which nothing will ever close."""

    writing = WritingThatOpensForTheEnded


class WritingThatMakesAgain(Writing):
    def _beside(self, run: RunRecord, write: Commit) -> Commit:
        for submission in write.submits:
            self._tables.runs.rows.pop(submission.id, None)
        return super()._beside(run, write)


class MakesChildrenAgain(Buggy):
    """Makes a child anew when a call that made it is repeated."""

    writing = WritingThatMakesAgain


class WritingOfOne(Writing):
    def _descendants(self, row: Row) -> list[Row]:
        return []


class PausesTheRootOnly(Buggy):
    """Sets a run aside, and none of its descendants."""

    writing = WritingOfOne


class TellsNothingOfRequests(MemoryStore):
    """Tells no worker what was asked of its runs, but with the answers to their writes."""

    async def controls(self, worker_id: str) -> Mapping[str, tuple[int, Control]]:
        return {}


class DiscardsAnything(MemoryStore):
    """Takes whatever failed off the list of the dead."""

    async def discard(self, run_id: str, *, by: str, tenant: str = "") -> RunRecord:
        row = self._row(run_id, tenant)
        row.run = row.run._replace(life=row.run.life._replace(dead=1))
        return await super().discard(run_id, by=by, tenant=tenant)


# ---------------------------------------------------------------- sessions


class SessionsWithoutVersions(Sessions):
    def check(self, tenant: str, writes: Sequence[SessionWrite]) -> None:
        """Everybody may write."""


class IgnoresExpectedVersions(Buggy):
    """Writes a value whatever its version is."""

    sessions_ = SessionsWithoutVersions


class SessionsOfAll(Sessions):
    def value(self, tenant: str, session_id: str, key: str) -> SessionValue | None:
        found = (
            super(SessionsOfAll, self).value(owner, id_, key) for owner, id_ in self._sessions if id_ == session_id
        )
        return next((value for value in found if value is not None), None)


class ShowsSessionsToOtherTenants(Buggy):
    """Reads the values of a session, whosever it is."""

    sessions_ = SessionsOfAll


# ---------------------------------------------------------------- lanes


class WideLanes(Lanes):
    def issue(self, row: Row, lanes: Sequence[Lane], parent: str | None = None) -> None:
        super().issue(row, [lane._replace(capacity=lane.capacity + 1) for lane in lanes], parent)


class GrantsOneTooMany(Buggy):
    """Lets one more run into a lane than it has room for."""

    lanes_ = WideLanes


class LanesThatKeep(Lanes):
    def leave(self, run_id: str) -> None:
        if self._runs.rows[run_id].run.life.status != "cancelled":
            super().leave(run_id)


class KeepsTheTicketsOfTheCancelled(Buggy):
    """Gives back no ticket of a run that was cancelled."""

    lanes_ = LanesThatKeep


class LanesThatForgetSessions(Lanes):
    def step_aside(self, run_id: str, *, keep_session: bool) -> None:
        super().step_aside(run_id, keep_session=False)


class GivesUpThePlaceInTheSession(Buggy):
    """Gives back every ticket of a run that waits, also that of its session."""

    lanes_ = LanesThatForgetSessions


class LanesThatAreKept(Lanes):
    def step_aside(self, run_id: str, *, keep_session: bool) -> None:
        super().step_aside(run_id, keep_session=True)


class KeepsThePlaceInTheSession(Buggy):
    """Keeps the place in its session of a run that gives it up."""

    lanes_ = LanesThatAreKept


class LanesWhereNobodyWasHere(Lanes):
    def entrant(self, run: str) -> Entrant:
        gate, place, tickets = super().entrant(run)
        return Entrant(gate, place._replace(fresh=1), tickets)


class SendsTheWokenToTheEnd(Buggy):
    """Has a run that is due again stand in line behind those that came before."""

    lanes_ = LanesWhereNobodyWasHere


class LanesWithoutLine(Lanes):
    def first(self, lane: int) -> str | None:
        return None


class GrantsNobodyInLine(Buggy):
    """Gives a free ticket to nobody who stands in line."""

    lanes_ = LanesWithoutLine


class LanesThatLendNothing(Lanes):
    def turns(self, run_id: str) -> list[int]:
        return []


class EndsTheTurnWithTheParent(Buggy):
    """Passes a turn on while children of the run that had it are executed."""

    lanes_ = LanesThatLendNothing


class LanesThatCountToOne(Lanes):
    def set_room(self, lane: int, room: Room) -> None:
        super().set_room(lane, room._replace(lent=min(room.lent, 1)))


class EndsTheTurnWithTheFirstChild(Buggy):
    """Passes a turn on when one of the children that live on it has ended."""

    lanes_ = LanesThatCountToOne


class LanesThatKeepForGood(Lanes):
    def holder(self, lane: int) -> tuple[str, int] | None:
        holder = super().holder(lane)
        return None if holder is None else (holder[0], GRANTED)


class KeepsTheTurnThatWasGivenUp(Buggy):
    """Forgets that a run wanted to give up its turn, when the last child that lives on it ends."""

    lanes_ = LanesThatKeepForGood


class LanesThatGiveUpAtOnce(Lanes):
    def step_aside(self, run_id: str, *, keep_session: bool) -> None:
        for lane in [] if keep_session else self.turns(run_id):
            self.set_room(lane, self.room(lane)._replace(lent=0))
        super().step_aside(run_id, keep_session=keep_session)


class GivesUpTheTurnOfItsChildren(Buggy):
    """Has a run give up its turn while children live on it."""

    lanes_ = LanesThatGiveUpAtOnce


class WritingThatInterrupts(Writing):
    def add(self, submission: Submission) -> Row:
        lane = self._tables.lanes.session_of(submission.tenant, submission.lanes)
        if submission.parent is not None and submission.busy == "interrupt" and lane is not None:
            for run_id in self._tables.lanes.holders(lane):
                self.cancel(self._tables.runs.rows[run_id], by="session", reason=None)
        return super().add(submission)


class LetsChildrenInterrupt(Buggy):
    """Cancels whoever has the turn that a child of another run wants."""

    writing = WritingThatInterrupts


class LanesThatNobodyBlocks(Lanes):
    def blockages(self, runs: Iterable[RunRecord]) -> list[Blockage]:
        return []


class NamesNoBlockages(Buggy):
    """Does not tell which lanes are kept by runs that nobody serves."""

    lanes_ = LanesThatNobodyBlocks


class NeverBusy(MemoryStore):
    """Treats a session that is not free like one that is."""

    async def submit(self, submission: Submission) -> Submitted:
        return await super().submit(submission._replace(busy="queue"))
