"""Stores that break the protocol in ways that have a name, and the layer of the tests that catches each.

Some are bugs of transitions, which the checker and both stores share; the others are a store's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import pytest

from stepwell.domain import transitions
from stepwell.domain.commit import Commit
from stepwell.domain.errors import LeaseLost
from stepwell.domain.outcome import Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.ports.store import Claim, ClaimRequest, Claims, Committed, Heartbeat
from stepwell.stores.memory.store import MemoryStore
from stepwell.stores.memory.writing import Writing
from stepwell.stores.sqlite import heartbeat, ties
from stepwell.stores.sqlite.operations import Operation
from stepwell.stores.sqlite.store import SqliteStore
from stepwell.stores.sqlite.transactions import Changes, Transactions
from stepwell.testing import conformance
from stepwell.testing.clock import ManualClock
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.harness import LEASE, events, note, take
from tests.protocol import bugs

Patch = pytest.MonkeyPatch


class RaceContract:
    """What nobody may see who comes in between."""

    async def test_a_write_that_was_checked_before_a_claim_does_not_land_after_it(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        worker_id = await harness.worker(store, lease_seconds=10 * LEASE)
        harness.clock.advance(LEASE + 1)
        late = Commit(1, (note("late"),))
        await asyncio.gather(store.commit(lease, late), take(store, worker_id), return_exceptions=True)
        kinds = [entry.kind for entry in await events(store, lease.run_id)]
        assert "custom.note" not in kinds[kinds.index("run.resumed") :]

    async def test_an_end_is_seen_together_with_its_facts(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        writing = asyncio.create_task(one.commit(lease, Commit(1, (note("last"),), Succeeded(Payload("1")))))
        seen = []
        while not writing.done():
            await asyncio.sleep(0)
            seen.append({entry.kind for entry in await events(other, lease.run_id)})
        await writing
        assert all(("custom.note" in kinds) == ("run.succeeded" in kinds) for kinds in seen)


# ---------------------------------------------------------------- plants


def _transition(name: str, patch: Patch) -> None:
    bug = bugs.BUGS[name]
    patch.setattr(transitions, bug.target, bug.replacement)


def _acknowledges_first(patch: Patch) -> None:
    """Answers are given before the transaction ends; the next one ends it."""
    attempt = Transactions._attempt

    def attempt_later(self: Transactions, operations: Sequence[Operation], changes: Changes, *, careful: bool) -> None:
        if self._connection.in_transaction:
            self._cursor.execute("COMMIT")
        attempt(self, operations, changes, careful=careful)

    patch.setattr(Transactions, "_attempt", attempt_later)
    patch.setattr(Transactions, "_commit", lambda self, batch: None)


def _checks_late(patch: Patch) -> None:
    """The fence is checked, and a moment later the write is done."""
    commit = MemoryStore.commit

    async def commit_late(self: MemoryStore, lease: Lease, write: Commit) -> Committed:
        why = transitions.refusal(self._row(lease.run_id).run.life, lease.fence)
        if why is not None:
            raise LeaseLost(why)
        await asyncio.sleep(0)
        return await commit(self, lease._replace(fence=self._row(lease.run_id).run.life.fence), write)

    patch.setattr(MemoryStore, "commit", commit_late)


def _writes_in_two_parts(patch: Patch) -> None:
    """The facts are written first, and the outcome in a transaction of its own."""

    def parted(commit: Any) -> Any:
        async def commit_parted(self: Any, lease: Lease, write: Commit) -> Any:
            if write.outcome is None:
                return await commit(self, lease, write)
            await commit(self, lease, write._replace(outcome=None))
            await asyncio.sleep(0.02)
            return await commit(self, lease, Commit(write.number + 1, outcome=write.outcome))

        return commit_parted

    for store in (MemoryStore, SqliteStore):
        patch.setattr(store, "commit", parted(store.commit))


def _splits_claims(patch: Patch) -> None:
    """What is due is looked up, and a moment later it is taken."""

    async def claim_late(self: MemoryStore, request: ClaimRequest) -> Claims:
        rows = sorted(self._runs.rows.values(), key=lambda row: row.place)
        due = [row for row in rows if row.run.life.status == "queued"][: request.limit]
        await asyncio.sleep(0)
        taken = []
        with self._writing() as writing:
            for row in due:
                change = transitions.claim(row.run.life, worker=request.worker, cause="due", now=writing.now)
                run = writing.apply(row, change)
                taken.append(Claim(run, Lease(run.id, run.life.fence, request.worker), list(row.journal)))
        return Claims(taken, None)

    patch.setattr(MemoryStore, "claim", claim_late)


def _beats_for_everybody(patch: Patch) -> None:
    """A heartbeat extends whatever anybody holds."""
    beat = MemoryStore.heartbeat

    def beat_for_all(self: MemoryStore, worker_id: str, *, lease_seconds: float) -> Heartbeat:
        answers = [beat(self, info.id, lease_seconds=lease_seconds) for info in self._workers.alive()]
        return Heartbeat({run_id: held for answer in answers for run_id, held in answer.held.items()})

    patch.setattr(MemoryStore, "heartbeat", beat_for_all)
    patch.setattr(heartbeat, "_HELD", heartbeat._HELD.replace("worker = ?", "? != ''"))


def _judges_by_the_wall_clock(patch: Patch) -> None:
    """Leases are judged by the time that people set."""
    patch.setattr(ManualClock, "elapsed", lambda self: self.now() / 1_000_000)


def _keeps_tickets(patch: Patch) -> None:
    """What a run held in its lanes is not given back by the write that needs it no more."""
    patch.setattr(Writing, "_give_back", lambda self, *asked: None)
    patch.setattr(ties, "give_back", lambda batch, moved: None)


# ---------------------------------------------------------------- register


class Check(NamedTuple):
    """One test of the conformance suite, over these stores."""

    contract: type
    name: str
    stores: tuple[str, ...] = ("memory", "sqlite")

    async def run(self, harness: Harness) -> None:
        """Run it, and give everything back."""
        try:
            test: Any = getattr(self.contract(), self.name)
            await test(harness)
        finally:
            await harness.close()


class Mutant(NamedTuple):
    """How it is planted in stores and what finds it there; which bug of the checker it is, if it is one; or in which
    file another layer plants it itself, and which test finds it.
    """

    plant: Callable[[Patch], None] | None = None
    check: Check | None = None
    bug: str | None = None
    elsewhere: tuple[str, str] | None = None


def _of_transitions(bug: str, contract: type, name: str) -> Mutant:
    return Mutant(partial(_transition, bug), Check(contract, name), bug)


MUTANTS: Final = {
    "no fence": _of_transitions("no fence check", conformance.FenceContract, "test_an_old_fence_appends_nothing"),
    "acknowledged before the commit": Mutant(
        _acknowledges_first,
        Check(conformance.DurabilityContract, "test_what_was_acknowledged_to_many_at_once_is_there", ("sqlite",)),
    ),
    "late check": Mutant(
        _checks_late,
        Check(RaceContract, "test_a_write_that_was_checked_before_a_claim_does_not_land_after_it", ("memory",)),
        "the fence before is good enough",
    ),
    "split claim": Mutant(
        _splits_claims,
        Check(conformance.ClaimContract, "test_no_run_is_given_to_two_workers", ("memory",)),
    ),
    "two transactions": Mutant(
        _writes_in_two_parts,
        Check(RaceContract, "test_an_end_is_seen_together_with_its_facts"),
        "facts and run in two transactions",
    ),
    "event outside the transaction": _of_transitions(
        "an end without its event",
        conformance.CommitContract,
        "test_an_outcome_and_all_its_facts_are_written_together",
    ),
    "unconditional heartbeat": Mutant(
        _beats_for_everybody,
        Check(conformance.WorkerContract, "test_the_answer_leaves_out_what_another_worker_took"),
    ),
    "wall-clock lease": Mutant(
        _judges_by_the_wall_clock,
        Check(conformance.LossContract, "test_a_jump_of_the_wall_clock_takes_no_lease_away"),
    ),
    "attempt counted after the run": _of_transitions(
        "an attempt is counted at its end",
        conformance.LossContract,
        "test_the_run_of_a_dead_worker_is_taken_at_once_as_a_new_attempt",
    ),
    "synchronous=NORMAL": Mutant(
        elsewhere=(
            "tests/integration/sqlite/power/test_power_loss.py",
            "test_a_store_that_does_not_wait_for_the_disk_is_caught",
        )
    ),
    "signal ignored while leased": _of_transitions(
        "a signal is ignored while leased",
        conformance.ArrivalContract,
        "test_what_the_holder_waits_for_is_closed_while_it_runs",
    ),
    "lane released outside the commit": Mutant(
        _keeps_tickets,
        Check(conformance.LaneReleaseContract, "test_a_run_that_is_cancelled_before_it_starts_gives_back_its_ticket"),
    ),
}
