"""A state machine that drives a store at random beside a pure model and compares every answer. Needs hypothesis.

    def harness_in(folder):
        return Harness(lambda clock: MyStore(folder / "data", clock=clock))

    TestMachine = machine_for(harness_in, settings(max_examples=30))

Checked after every step: the store holds what the model holds, events are numbered 1..n, an ended run stays as it is, a
fence never falls. Checked by heartbeats: a worker holds what the model says and nothing else. Checked in the end: every
acknowledged run is there.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from stepwell.domain import transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict, StepwellError
from stepwell.domain.outcome import NEVER, Parked, Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.domain.transitions import Change
from stepwell.domain.wait import Signal, Wait
from stepwell.ports.store import ClaimRequest, Store
from stepwell.testing.conformance.harness import SECOND, Harness, note
from stepwell.testing.conformance.model import ModelRun
from stepwell.testing.conformance.moves import (
    AGENTS,
    SIGNALS,
    Parking,
    Request,
    WaitPlan,
    mostly,
    parkings,
    picks,
    rarely,
    requests,
    some_names,
    wait_plans,
)
from stepwell.testing.conformance.queue_machine import QueueMachine, answer_of, foretold


class StoreMachine(QueueMachine):
    """The whole machine. Made for a kind of store by `machine_for`."""

    # ------------------------------------------------------------ waits and children

    @rule(pick=picks, plans=st.lists(wait_plans, min_size=1, max_size=3), parks=parkings)
    def holder_opens_waits(self, pick: int, plans: list[WaitPlan], parks: Parking) -> None:
        self._open(self._held(pick, parent=bool(pick % 2)), plans, parks)

    @rule(pick=picks, names=some_names, waits=st.integers(1, 3), parks=parkings)
    def holder_waits_for_what_came_before(self, pick: int, names: list[str], waits: int, parks: Parking) -> None:
        lease = self._held(pick)
        for number, name in enumerate(names):
            self._signal(lease.run_id, Signal(f"early-{pick}-{number}", name, Payload("1")))
        plans: list[WaitPlan] = [("signal", None, SIGNALS.index(name)) for name in names[:waits]]
        self._open(lease, plans, parks)

    @rule(pick=picks, count=st.integers(1, 2), detached=rarely, hooked=rarely, waits=mostly, parks=parkings)
    def holder_makes_children(
        self, pick: int, count: int, detached: bool, hooked: bool, waits: bool, parks: Parking
    ) -> None:
        kind = {"detached": int(detached), "hooked": int(hooked)}
        self._make_children(
            self._held(pick, parent=bool(pick % 2)), count, parks if waits else "not", waits=waits, **kind
        )

    @rule(pick=picks, counts=st.tuples(st.integers(1, 2), st.integers(1, 2)), limit=st.integers(1, 6), parks=parkings)
    def a_family_works(self, pick: int, counts: tuple[int, int], limit: int, parks: Parking) -> None:
        """Children are made and finished, and their parent makes them once more."""
        lease = self._held(pick, parent=bool(pick % 2))
        self._make_children(lease, counts[0], "later")
        self.worker_finishes_what_it_finds(pick, limit, "returned")
        worker = self._worker(pick)
        self._claim(worker, ClaimRequest(worker.id, 1, AGENTS, (lease.run_id,)))
        if again := [each for each in self._valid() if each.run_id == lease.run_id]:
            self._make_children(again[0], counts[1], parks)

    def _make_children(
        self, lease: Lease, count: int, parks: Parking, *, waits: bool = True, detached: int = 0, hooked: int = 0
    ) -> None:
        run = self.model.runs[lease.run_id]
        if run.record.depth > 1:
            return
        numbers = range(1, count + 1)
        children = [self.harness.child_of(run.record, n, detached=detached, hooked=hooked) for n in numbers]
        opens = tuple(self.harness.child_wait(child.id, join="children") for child in children if waits)
        self._write(lease, parks, opens=opens, submits=tuple(children))

    def _open(self, lease: Lease, plans: Sequence[WaitPlan], parks: Parking) -> None:
        children = self.model.children(self.model.runs[lease.run_id])
        self._write(lease, parks, opens=tuple(self._wait(plan, children) for plan in plans))

    def _write(self, lease: Lease, parks: Parking, **what: Any) -> None:
        """One write, with which the holder parks, after which he does or returns, or not."""
        seen = self.model.runs[lease.run_id].life.seq
        outcome = Parked(NEVER, "[]", seen) if parks == "at once" else None
        self._commit([(lease, Commit(self._number(lease), outcome=outcome, **what))])
        if parks == "later":
            self._park(lease, NEVER)
        if parks == "ends":
            self._commit([(lease, Commit(self._number(lease), outcome=Succeeded(Payload("1"))))])

    @rule(pick=picks, which=picks, parks=mostly)
    @precondition(lambda self: self.model.waits)
    def holder_gives_up_a_wait(self, pick: int, which: int, parks: bool) -> None:
        lease = self._held(pick)
        mine = [wait_id for wait_id, record in self.model.waits.items() if record.run_id == lease.run_id]
        wait_ids = mine or list(self.model.waits)
        expires = (wait_ids[which % len(wait_ids)],)
        self._commit([(lease, Commit(self._number(lease), expires=expires))])
        if parks:
            self._park(lease, self.clock.now() + 3 * SECOND)

    @rule(pick=picks, behind=rarely)
    def holder_parks(self, pick: int, behind: bool) -> None:
        self._park(self._held(pick), NEVER, behind=behind)

    def _park(self, lease: Lease, wake_at: int, *, behind: bool = False) -> None:
        """Give back the lease, after the last look or before it."""
        seen = self.model.runs[lease.run_id].life.seq - int(behind)
        self._commit([(lease, Commit(self._number(lease), outcome=Parked(wake_at, "[]", seen)))])

    def _wait(self, plan: WaitPlan, children: list[ModelRun]) -> Wait:
        kind, join, pick = plan
        if kind == "child" and children:
            return self.harness.child_wait(children[pick % len(children)].record.id, join=join)
        if kind == "question":
            return self.harness.question(join=join)
        return self.harness.signal_wait(SIGNALS[pick % len(SIGNALS)], join=join)

    @rule(pick=picks, sender=st.integers(0, 6), names=some_names, again=rarely, waiting=mostly)
    def somebody_signals(self, pick: int, sender: int, names: list[str], again: bool, waiting: bool) -> None:
        run = self._concerned(pick, waiting=waiting, kind="signal")
        signals = [Signal(f"signal-{number}", name, Payload("1")) for number, name in enumerate(names, sender)]
        for signal in signals * (1 + int(again)):
            self._signal(run.record.id, signal)

    def _signal(self, run_id: str, signal: Signal) -> None:
        expected = foretold(partial(self.model.receive, self.model.runs[run_id], signal))
        answer = self.run(answer_of(self.views[len(self.seen) % 2].signal(run_id, signal)))
        self._compare(answer, expected)

    @rule(pick=picks, again=st.booleans())
    @precondition(lambda self: self.model.questions())
    def somebody_answers(self, pick: int, again: bool) -> None:
        questions = self.model.questions()
        wanted = questions if again else [record for record in questions if record.outcome is None] or questions
        record = wanted[pick % len(wanted)]
        expected = foretold(partial(self.model.answer, record, Payload("true"), "ann"))
        answer = self.run(answer_of(self.views[pick % 2].answer(record.wait.id, Payload("true"), by="ann")))
        self._compare(answer, expected)

    @rule(pick=picks, what=requests, parents=mostly)
    def somebody_asks(self, pick: int, what: Request, parents: bool) -> None:
        run = self._parent(pick) if parents else self._run(pick)
        match what:
            case "cancel":
                self._cancel(run, self.views[pick % 2])
            case "pause":
                self._pause(run, self.views[pick % 2])
            case "discard":
                self._discard(pick, self.views[pick % 2])
        if run.life.worker is not None:
            self._check_controls(run.life.worker)

    def _cancel(self, run: ModelRun, store: Store) -> None:
        answer = self.run(store.cancel(run.record.id, by="ann", reason="enough"))
        assert answer == self.model.cancel(run, by="ann", reason="enough")
        self.model.settle()

    def _pause(self, run: ModelRun, store: Store) -> None:
        expected = foretold(partial(self.model.pause, run, by="ann"))
        answer = self.run(answer_of(store.pause(run.record.id, by="ann")))
        self._compare(answer, expected or run.record)

    def _discard(self, pick: int, store: Store) -> None:
        runs = [run for run in self.model.runs.values() if run.life.status == "failed"] or [self._run(pick)]
        run = runs[pick % len(runs)]
        change = foretold(partial(transitions.discard, run.life, by="ann"))
        answer = self.run(answer_of(store.discard(run.record.id, by="ann")))
        if isinstance(change, Change):
            self.model.apply(run, change)
        self._compare(answer, run.record if isinstance(change, Change) else change)

    def _compare(self, answer: object, expected: object) -> None:
        """The answer is the expected one, or the same refusal."""
        if isinstance(expected, StepwellError):
            assert (type(answer), getattr(answer, "code", None)) == (type(expected), expected.code)
        else:
            assert answer == expected

    def _concerned(self, pick: int, *, waiting: bool, kind: str) -> ModelRun:
        """A run that waits for something of that kind, where one is wanted and there is one, or any."""
        open_waits = (record for record in self.model.waits.values() if record.outcome is None)
        ids = {record.run_id: None for record in open_waits if record.wait.type == kind} if waiting else {}
        return self.model.runs[list(ids)[pick % len(ids)]] if ids else self._run(pick)

    def _parent(self, pick: int) -> ModelRun:
        """A run that made others, where there is one, or any."""
        parents = [run for run in self.model.runs.values() if not run.life.ended and self.model.children(run)]
        return parents[pick % len(parents)] if parents else self._run(pick)

    # ------------------------------------------------------------ holds

    @rule(pick=picks, held=mostly, behind=rarely, verdict=st.sampled_from([None, None, "done", "rerun", "fail"]))
    @precondition(lambda self: any(run.life.hold for run in self.model.runs.values()))
    def somebody_resumes(self, pick: int, held: bool, behind: bool, verdict: str | None) -> None:
        runs = [run for run in self.model.runs.values() if run.life.hold or not held]
        run = runs[pick % len(runs)]
        asked: dict[str, Any] = {"by": "ann", "drafts": (note("settled"),) if verdict else (), "verdict": verdict}
        seen = run.life.seq - int(behind)
        answer = self.run(answer_of(self.views[pick % 2].resume(run.record.id, at_seq=seen, **asked)))
        change = foretold(partial(transitions.resume, run.life, now=self.clock.now(), **asked))
        if isinstance(change, Change) and not behind:
            self.model.resume(run, change, by="ann")
            assert answer == run.record
        else:
            assert isinstance(answer, Conflict)
            assert answer.code in ("run.changed" if behind else None, getattr(change, "code", None))
        self._touch(run)


def machine_for(make_harness: Callable[[Path], Harness], profile: settings) -> type[unittest.TestCase]:
    """The test case that drives one kind of store; `make_harness` is given an empty folder for each try."""
    machine: Any = type("Machine", (StoreMachine,), {"make_harness": staticmethod(make_harness)})
    case: type[unittest.TestCase] = machine.TestCase
    case.settings = profile  # type: ignore[attr-defined]
    return case
