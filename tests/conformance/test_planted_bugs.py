"""The suite can fail: each store here has one bug, and both the contracts and the machine must find it."""

import asyncio
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from stepwell.domain.errors import StepwellError
from stepwell.domain.outcome import Commit
from stepwell.domain.run import Lease, RunRecord
from stepwell.domain.transitions import ClaimCause
from stepwell.ports.store import ClaimRequest, Claims, Committed, Heartbeat, RunQuery, Submission, Submitted
from stepwell.stores.memory.claims import Round
from stepwell.stores.memory.runs import Row
from stepwell.stores.memory.store import MemoryStore
from stepwell.testing import conformance
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.machine import StoreMachine


class ChecksNoFence(MemoryStore):
    """Whoever writes is taken for the holder."""

    async def commit(self, lease: Lease, write: Commit) -> Committed:
        return await super().commit(lease._replace(fence=self._row(lease.run_id).run.life.fence), write)


class LooksForKeysTooEarly(MemoryStore):
    """Asks whether the key is known, and creates the run a moment later without asking again."""

    async def submit(self, submission: Submission) -> Submitted:
        known = self._named_by_key(submission)
        await asyncio.sleep(0)
        if known is not None:
            return Submitted(known.run, created=False, lease=None)
        key = submission.tenant, submission.agent, submission.idempotency_key or ""
        self._keys.pop(key, None)
        return await super().submit(submission)


class RoundWithoutLosses(Round):
    """Takes every lost run for one whose lease ran out."""

    def lost(self) -> list[tuple[Row, ClaimCause]]:
        return [(row, "expired") for row, _ in super().lost()]


class RaisesNoAttempt(MemoryStore):
    """The death of a worker counts as nothing."""

    def _round(self, request: ClaimRequest) -> Round:
        sound = super()._round(request)
        return RoundWithoutLosses(self._runs, self._workers, request, now=sound._now, elapsed=sound._elapsed)


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
        for row in self._runs.rows.values():
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


class Check(NamedTuple):
    """One test of the suite."""

    contract: type
    name: str

    async def run(self, store: type[MemoryStore]) -> None:
        """Run it against that kind of store."""
        await getattr(self.contract(), self.name)(Harness(store))


FOUND_BY: dict[type[MemoryStore], Check] = {
    ChecksNoFence: Check(conformance.FenceContract, "test_an_old_fence_appends_nothing"),
    LooksForKeysTooEarly: Check(conformance.IdempotencyContract, "test_fifty_callers_with_one_key_make_one_run"),
    RaisesNoAttempt: Check(conformance.LossContract, "test_the_run_of_a_dead_worker_is_taken_at_once_as_a_new_attempt"),
    WritesTwice: Check(conformance.CommitContract, "test_the_same_number_twice_is_written_once"),
    ForgetsFacts: Check(conformance.CommitContract, "test_an_outcome_and_all_its_facts_are_written_together"),
    HoldsForEverybody: Check(conformance.WorkerContract, "test_the_answer_leaves_out_what_another_worker_took"),
    ForgetsLimits: Check(conformance.LimitContract, "test_a_run_past_its_deadline_is_ended_and_not_given"),
    IgnoresTheLimit: Check(conformance.ClaimContract, "test_a_claim_takes_no_more_than_its_limit"),
    TakesHeldRuns: Check(conformance.DueContract, "test_a_held_run_is_not_taken"),
    ShowsTenantsToEachOther: Check(conformance.ReadingContract, "test_the_run_of_another_tenant_is_not_found"),
    ListsTheOldestFirst: Check(conformance.ListingContract, "test_a_listing_begins_with_the_newest"),
}
ONE_TENANT_ONE_CALLER = {ShowsTenantsToEachOther, LooksForKeysTooEarly}
"""Bugs that show between tenants or between callers at the same time: not what the machine tries."""


every_bug = pytest.mark.parametrize("bug", FOUND_BY, ids=lambda bug: bug.__name__)
every_bug_of_one_caller = pytest.mark.parametrize(
    "bug", [bug for bug in FOUND_BY if bug not in ONE_TENANT_ONE_CALLER], ids=lambda bug: bug.__name__
)


@every_bug
async def test_a_contract_finds_the_bug(bug: type[MemoryStore]) -> None:
    check = FOUND_BY[bug]
    await check.run(MemoryStore)
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        await check.run(bug)


@every_bug_of_one_caller
def test_the_machine_finds_the_bug(bug: type[MemoryStore]) -> None:
    machine = type("Machine", (StoreMachine,), {"make_harness": staticmethod(lambda _: Harness(bug))})
    search = settings(
        max_examples=500,
        stateful_step_count=40,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises((AssertionError, StepwellError)):
        run_state_machine_as_test(machine, settings=search)
