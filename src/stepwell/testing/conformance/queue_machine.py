"""The part of the state machine that is about the queue: workers, time, submissions, claims and plain commits.

`machine` builds on it and says what the whole is for. Needs hypothesis.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stepwell.domain import transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict, LeaseLost, StepwellError
from stepwell.domain.outcome import Outcome
from stepwell.domain.run import RUNNING, Lease, RunRecord, place_in_queue
from stepwell.domain.submission import Submission
from stepwell.ports.store import Claim, ClaimRequest, Claims, QuestionQuery, RunQuery, Store
from stepwell.testing.conformance.harness import LEASE, SECOND, Harness, beat
from stepwell.testing.conformance.model import ModelRun, ModelWorker
from stepwell.testing.conformance.moves import (
    AGENTS,
    Facts,
    Plan,
    agent_sets,
    any_writes,
    endings,
    fact_lists,
    leased_times,
    mostly,
    outcomes,
    picks,
    plans,
    rarely,
)
from stepwell.testing.conformance.ties import TiedModel

T = TypeVar("T")

PROOF = 1.0
"""Real seconds within which the death of a worker is proven. Until then its runs may be taken or left."""


class QueueMachine(RuleBasedStateMachine):
    """One store in two views, and the model. `machine` adds the rest of the rules."""

    make_harness: Callable[[Path], Harness]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.harness = type(self).make_harness(Path(self.folder.name))
        self.clock = self.harness.clock
        self.model = TiedModel(self.clock)
        self.views: tuple[Store, ...] = self.run(self.harness.views())
        self.touched: set[str] = set()
        self.seen: dict[str, RunRecord] = {}
        self.died_at: dict[str, float] = {}

    def teardown(self) -> None:
        """Compare everything once more, unless a step has failed already, and give everything back."""
        try:
            if sys.exc_info()[0] is None:
                self.touched |= self.model.runs.keys()
                self.every_touched_run_is_as_the_model_says()
                self.every_run_is_listed()
                self.every_question_is_as_the_model_says()
        finally:
            self.run(self.harness.close())
            self.runner.close()
            self.folder.cleanup()

    def run(self, call: Awaitable[T]) -> T:
        """Wait for a call to the store."""

        async def awaited() -> T:
            return await call

        return self.runner.run(awaited())

    # ------------------------------------------------------------ workers

    @initialize(first=st.lists(plans, min_size=3, max_size=6), limit=st.integers(1, 6))
    def everybody_begins(self, first: list[Plan], limit: int) -> None:
        self._worker_begins(view=0)
        self._worker_begins(view=1)
        for plan in first:
            self.somebody_submits(plan)
        self.worker_claims(0, limit, AGENTS)

    @rule(pick=picks)
    def worker_begins(self, pick: int) -> None:
        if len(self.model.alive()) < 4:
            self._worker_begins(view=pick % 2)

    def _worker_begins(self, *, view: int) -> None:
        worker_id = self.run(self.harness.worker(self.views[view]))
        self.model.workers[worker_id] = ModelWorker(worker_id, view, self.clock.elapsed() + LEASE)

    @rule(pick=picks)
    def worker_beats(self, pick: int) -> None:
        worker = self._worker(pick)
        answer = self.run(beat(self.views[worker.view], worker.id))
        worker.leased_until = self.clock.elapsed() + LEASE
        assert answer.held == self.model.held_by(worker.id)
        self._check_controls(worker.id)

    def _check_controls(self, worker_id: str) -> None:
        """A worker is told what was asked of its runs, and of no others."""
        asked = {run_id: told for run_id, told in self.model.held_by(worker_id).items() if any(told[1])}
        assert self.run(self.views[self.model.workers[worker_id].view].controls(worker_id)) == asked

    @rule(pick=picks, crashes=mostly, limit=st.integers(0, 6))
    def worker_ends_and_another_looks_for_work(self, pick: int, crashes: bool, limit: int) -> None:
        worker = self._worker(pick)
        store = self.views[worker.view]
        if crashes:
            store.abandon_worker(worker.id)
            self._note_death(worker)
        else:
            self.run(store.close_worker(worker.id))
            worker.gone = "expired"
        if limit:
            self.worker_claims(pick, limit, AGENTS)

    def _note_death(self, worker: ModelWorker) -> None:
        worker.gone = "lost"
        self.died_at[worker.id] = time.monotonic()

    @rule()
    @precondition(lambda self: self.harness.capabilities.durable)
    def everything_is_closed_and_opened_again(self) -> None:
        self.run(self.harness.reopen())
        self.views = self.run(self.harness.views())
        for worker in self.model.alive():
            self._note_death(worker)
        self.touched |= self.model.runs.keys()

    # ------------------------------------------------------------ time

    @rule(seconds=st.sampled_from([0.5, 3, 11, 31]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-20, -1, 1, 20]))
    def the_wall_clock_jumps(self, seconds: float) -> None:
        self.clock.jump(seconds)

    # ------------------------------------------------------------ runs

    @rule(plan=plans)
    def somebody_submits(self, plan: Plan) -> None:
        worker = self._worker(plan.pick) if plan.start else None
        submission = self.harness.submission(
            delay=plan.delay,
            agent=plan.agent,
            priority=plan.priority,
            deadline=None if plan.deadline is None else self.clock.now() + plan.deadline * SECOND,
            timeout=plan.timeout,
            idempotency_key=plan.key,
            input_digest=plan.digest,
            start_on=worker and worker.id,
        )
        store = self.views[plan.pick % 2 if worker is None else worker.view]
        known = self.model.keys.get((submission.tenant, plan.agent, plan.key)) if plan.key else None
        if known is None:
            self._submits_a_new_run(store, submission)
        else:
            self._submits_with_a_known_key(store, submission, *known)

    def _submits_with_a_known_key(self, store: Store, submission: Submission, run: ModelRun, digest: str) -> None:
        answer = self.run(answer_of(store.submit(submission)))
        if submission.input_digest == digest:
            assert answer == (run.record, False, None)
        else:
            assert isinstance(answer, Conflict)
            assert answer.code == "idempotency.conflict"
        self._touch(run)

    def _submits_a_new_run(self, store: Store, submission: Submission) -> None:
        may_start, must_start = self._foretell_fast_path(submission)
        answer = self.run(store.submit(submission))
        run = self.model.add(submission)
        if answer.lease is not None:
            assert may_start
            self.model.claim(run, answer.lease.worker, "due")
            assert answer.lease == run.leases[-1]
        else:
            assert not must_start
        assert answer.created
        assert answer.run == run.record
        self._touch(run)

    def _foretell_fast_path(self, submission: Submission) -> tuple[bool, bool]:
        """Whether the run may start in the same write, and whether it must. Both, but for deaths not proven yet."""
        request = ClaimRequest("", 1, (submission.agent,))
        now = self.clock.now()
        due = submission.start_on is not None and submission.available_at <= now
        late = submission.deadline is not None and submission.deadline <= now
        place = place_in_queue(submission.available_at, submission.priority)
        ahead = any(run.place <= place for run in self.model.due(request))
        lost = self.model.lost(request)
        possible = due and not late and not ahead
        return possible and all(self._may_be_left(run) for run, _ in lost), possible and not lost

    @rule(pick=picks, limit=st.integers(1, 6), agents=agent_sets)
    def worker_claims(self, pick: int, limit: int, agents: Sequence[str]) -> None:
        worker = self._worker(pick)
        self._claim(worker, ClaimRequest(worker.id, limit, agents))

    @rule(pick=picks, limit=st.integers(1, 2), only=st.lists(picks, max_size=3))
    def worker_claims_certain_runs(self, pick: int, limit: int, only: list[int]) -> None:
        worker = self._worker(pick)
        named = tuple({self._run(number).record.id for number in only})
        self._claim(worker, ClaimRequest(worker.id, limit, AGENTS, named))

    def _claim(self, worker: ModelWorker, request: ClaimRequest) -> None:
        answer = self.run(self.views[worker.view].claim(request))
        for run, limit in self.model.overdue():
            self.model.apply(run, transitions.time_out(run.life, limit, self.clock.now()))
        self.model.settle()
        self.model.make_up()
        lost = {run.record.id: cause for run, cause in self.model.lost(request)}
        from_the_lost = [claim for claim in answer.taken if claim.run.id in lost]
        from_the_due = [claim for claim in answer.taken if claim.run.id not in lost]
        assert answer.taken == from_the_lost + from_the_due
        assert len(answer.taken) <= request.limit
        due_before = self.model.due(request)
        self._check_lost(request, answer, from_the_lost)
        woken = [run for run in self.model.due(request) if run not in due_before]
        self._check_due(request, from_the_due, woken, room=request.limit - len(from_the_lost))
        if not woken:
            assert answer.next_due_at == self.model.next_due_at(request)

    def _check_lost(self, request: ClaimRequest, answer: Claims, taken: list[Claim]) -> None:
        """Lost runs are taken, or end of it; only a full hand or a death not proven yet leaves one as it was."""
        by_id = {claim.run.id: claim for claim in taken}
        for run, cause in sorted(self.model.lost(request), key=lambda item: item[0].record.id):
            claim = by_id.get(run.record.id)
            stored = claim.run if claim else self.run(self.views[0].get(run.record.id))
            if stored.life.fence == run.life.fence:  # nobody took it; the end of its parent may have changed it
                assert len(answer.taken) == request.limit or self._may_be_left(run)
                continue
            if stored.life.lost == run.life.lost and self._is_fresh(run) and self.model.lease_is_over(run):
                cause = "expired"  # time was faster than the proof
            self.model.claim(run, request.worker, cause)
            assert (claim is not None) == (run.life.status == RUNNING)
        self.model.settle()
        for claim in taken:
            self._check_claim(claim)

    def _check_due(self, request: ClaimRequest, taken: list[Claim], woken: list[ModelRun], *, room: int) -> None:
        """Of the due runs, those are taken that go first; those that the end of a lost child woke may be left."""
        due = self.model.due(request)
        before = [run for run in due if run not in woken]
        places = [self.model.runs[claim.run.id].place for claim in taken]
        assert places in ([run.place for run in due[:room]], [run.place for run in before[:room]])
        for claim in taken:
            run = self.model.runs[claim.run.id]
            assert run in due
            self.model.claim(run, request.worker, "due")
            self._check_claim(claim)

    def _check_claim(self, claim: Claim) -> None:
        run = self.model.runs[claim.run.id]
        assert claim == (run.record, run.leases[-1], run.journal)

    # ------------------------------------------------------------ commits

    @rule(pick=picks, limit=st.integers(1, 4), ending=st.sampled_from(["returned", "returned", "failed", "dead"]))
    def worker_finishes_what_it_finds(self, pick: int, limit: int, ending: str) -> None:
        worker = self._worker(pick)
        self._claim(worker, ClaimRequest(worker.id, limit, AGENTS))
        for lease in [lease for lease in self._valid() if lease.worker == worker.id]:
            if lease in self._valid():  # the end of its parent may have ended it
                self._commit([(lease, Commit(self._number(lease), outcome=self._outcome(ending)))])

    @rule(pick=picks, again=rarely, facts=fact_lists)
    def holder_appends(self, pick: int, again: bool, facts: Facts) -> None:
        lease = self._held(pick)
        self._commit([(lease, Commit(self._number(lease, again=again), facts))])

    @rule(pick=picks, facts=fact_lists, endings=st.lists(endings, min_size=1, max_size=3), leased=leased_times)
    def holders_end_attempts(self, pick: int, facts: Facts, endings: list[str], leased: int) -> None:
        for ending in endings:
            if self._valid() or ending is endings[0]:
                lease = self._held(pick)
                self._commit([(lease, Commit(self._number(lease), facts, self._outcome(ending), leased))])

    @rule(pick=picks, again=rarely, facts=fact_lists, ending=st.none() | endings)
    @precondition(lambda self: self._leases())
    def somebody_writes_perhaps_too_late(self, pick: int, again: bool, facts: Facts, ending: str | None) -> None:
        lease = self._lease(pick, valid=False)
        self._commit([(lease, Commit(self._number(lease, again=again), facts, self._outcome(ending)))])

    @rule(choices=st.lists(any_writes, max_size=6))
    @precondition(lambda self: self._leases())
    def many_write_at_once(self, choices: list[tuple[int, bool, Facts, str | None]]) -> None:
        writes = []
        for step, (pick, valid, facts, ending) in enumerate(choices):
            lease = self._lease(pick, valid=valid)
            if self.model.runs[lease.run_id].life.cancelling:
                continue  # it would end, and who of those beside it comes first is open
            writes.append((lease, Commit(self._number(lease) + step, facts, self._outcome(ending))))
        self._commit(writes)

    def _commit(self, writes: list[tuple[Lease, Commit]]) -> None:
        """Write at the same time, in this order; each is accepted or refused as foretold."""
        answers = self.run(self._all_at_once([self._view(lease).commit(lease, write) for lease, write in writes]))
        for (lease, write), answer in zip(writes, answers, strict=True):
            run = self.model.runs[lease.run_id]
            expected = foretold(partial(self.model.commit, run, lease, write))
            if isinstance(expected, StepwellError):
                assert isinstance(answer, LeaseLost)
            else:
                assert answer == expected
            self._touch(run)

    async def _all_at_once(self, calls: list[Awaitable[Any]]) -> list[object]:
        return list(await asyncio.gather(*map(answer_of, calls)))

    # ------------------------------------------------------------ what is always true

    @invariant()
    def every_touched_run_is_as_the_model_says(self) -> None:
        self.touched |= self.model.changed
        self.model.changed.clear()
        for run_id in sorted(self.touched):
            run = self.model.runs[run_id]
            view = self.views[len(self.seen) % 2]
            stored = self.run(view.get(run_id))
            journal = self.run(view.journal(run_id))
            self._check_invariants(self.seen.get(run_id), stored, [entry.seq for entry in journal])
            assert stored == run.record
            assert journal == run.journal
            self.seen[run_id] = stored
        self.touched.clear()

    def _check_invariants(self, before: RunRecord | None, run: RunRecord, numbers: list[int]) -> None:
        """What is true of every run, whatever the model says."""
        assert numbers == list(range(1, run.life.seq + 1))
        assert (run.life.status == RUNNING) == (run.life.worker is not None)
        if before is not None:
            assert run.life.fence >= before.life.fence
            assert run.life.seq >= before.life.seq
            assert not before.life.ended or run.life.status == before.life.status

    def every_question_is_as_the_model_says(self) -> None:
        """Open and closed ones, and the list of the open ones."""
        for record in self.model.questions():
            assert self.run(self.views[0].question(record.wait.id)) == record
        listed = {record.wait.id for record in self.run(self.views[1].questions(QuestionQuery()))}
        assert listed == {record.wait.id for record in self.model.questions() if record.outcome is None}

    def every_run_is_listed(self) -> None:
        """Nothing that was acknowledged is missing, and nothing else is there."""
        listed = self.run(self.views[0].find(RunQuery(limit=10_000)))
        assert [run.id for run in listed] == sorted(self.model.runs, reverse=True)

    # ------------------------------------------------------------ choices

    def _worker(self, pick: int) -> ModelWorker:
        if not self.model.alive():
            self._worker_begins(view=pick % 2)
        alive = self.model.alive()
        return alive[pick % len(alive)]

    def _run(self, pick: int) -> ModelRun:
        runs = list(self.model.runs.values())
        return runs[pick % len(runs)]

    def _leases(self) -> list[Lease]:
        """Every lease that was ever given."""
        return [lease for run in self.model.runs.values() for lease in run.leases]

    def _valid(self) -> list[Lease]:
        """The leases of the runs that are running."""
        return [run.leases[-1] for run in self.model.runs.values() if run.life.status == RUNNING]

    def _lease(self, pick: int, *, valid: bool) -> Lease:
        """A valid lease, where one is wanted and there is one, or any."""
        leases = (self._valid() if valid else []) or self._leases()
        return leases[pick % len(leases)]

    def _held(self, pick: int, *, parent: bool = False) -> Lease:
        """A valid lease, of a run that was just submitted if there is no other; that of a parent, if one is wanted and
        there is one.
        """
        while not self._valid():
            self.somebody_submits(Plan(AGENTS[pick % 2], pick))
            worker = self._worker(pick)
            self._claim(worker, ClaimRequest(worker.id, 6, AGENTS))
        valid = self._valid()
        parents = [lease for lease in valid if self.model.children(self.model.runs[lease.run_id])]
        leases = parents if parent and parents else valid
        return leases[pick // 2 % len(leases)]

    def _outcome(self, ending: str | None) -> Outcome | None:
        return None if ending is None else outcomes(self.clock.now())[ending]

    def _number(self, lease: Lease, *, again: bool = False) -> int:
        return self.model.runs[lease.run_id].life.commit_no + (0 if again else 1)

    def _view(self, lease: Lease) -> Store:
        return self.views[self.model.workers[lease.worker].view]

    def _is_fresh(self, run: ModelRun) -> bool:
        """Whether the holder died so recently that nobody may have found out yet."""
        return time.monotonic() - self.died_at.get(run.life.worker or "", 0.0) < PROOF

    def _may_be_left(self, run: ModelRun) -> bool:
        """Whether a lost run may be left where it is, since neither death nor time gives it away yet."""
        return self._is_fresh(run) and not self.model.lease_is_over(run)

    def _touch(self, run: ModelRun) -> None:
        self.touched.add(run.record.id)


async def answer_of(call: Awaitable[Any]) -> Any:
    """The answer, or the error that was raised instead."""
    try:
        return await call
    except StepwellError as error:
        return error


def foretold(transition: Callable[[], T]) -> T | StepwellError:
    """What a transition makes of a run, or why it is refused."""
    try:
        return transition()
    except StepwellError as error:
        return error
