"""What `Store.resume` must do: lift a hold once, on what the caller saw, with the facts that settle a doubt."""

from __future__ import annotations

import asyncio

import pytest

from stepwell.domain.errors import Conflict, NotFound, RunEnded
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Held, Parked, Payload, Succeeded
from stepwell.domain.run import RunRecord
from stepwell.domain.values import loads
from stepwell.testing.conformance.harness import SECOND, Harness, events, stored, take

_DONE = Draft("step.completed", '{"name":"pay","result":"r-1"}', step="0/1")


class ResumeContract:
    """Holds are lifted."""

    @pytest.mark.parametrize("why", ["diverged", "paused"])
    async def test_a_resumed_run_goes_on_with_its_attempt(self, harness: Harness, why: str) -> None:
        one, other = await harness.views()
        held = await harness.ended(one, Held(why, by="somebody"))
        run = await other.resume(held.id, at_seq=held.life.seq, by="ann")
        assert (run.life.shown, run.life.hold) == ("queued", None)
        assert await one.get(run.id) == run
        last = (await events(one, run.id))[-1]
        assert (last.kind, loads(last.data)) == ("run.released", {"by": "ann"})
        [claim] = await take(one, await harness.worker(one))
        assert (claim.run.life.attempt, claim.lease.fence) == (1, 2)

    @pytest.mark.parametrize("verdict", ["done", "rerun", "fail"])
    async def test_a_verdict_settles_a_doubt_with_its_facts_in_front(self, harness: Harness, verdict: str) -> None:
        store = await harness.make()
        held = await harness.ended(store, Held("in_doubt", by="step"))
        await store.resume(held.id, at_seq=held.life.seq, by="ann", drafts=(_DONE,), verdict=verdict)
        step, released = (await events(store, held.id))[-2:]
        assert (step.kind, step.step, step.data) == (_DONE.kind, _DONE.step, _DONE.data)
        assert loads(released.data) == {"by": "ann", "verdict": verdict}

    async def test_a_doubt_needs_a_verdict(self, harness: Harness) -> None:
        await self._refused(harness, "in_doubt", verdict=None, code="run.verdict")

    async def test_a_verdict_needs_a_doubt(self, harness: Harness) -> None:
        await self._refused(harness, "diverged", verdict="rerun", code="run.verdict")

    async def test_a_hold_is_not_lifted_by_somebody_who_saw_less(self, harness: Harness) -> None:
        await self._refused(harness, "diverged", behind=1, code="run.changed")

    async def test_a_run_that_is_not_held_is_refused(self, harness: Harness) -> None:
        store = await harness.make()
        waiting = await harness.ended(store, Parked(harness.clock.now() + SECOND, "[]"))
        running = await store.get((await harness.started(store)).run_id)
        for run in (await harness.submit(store), waiting, running):
            before = await stored(store, run.id)
            with pytest.raises(Conflict) as refused:
                await store.resume(run.id, at_seq=run.life.seq, by="ann")
            assert refused.value.code == "run.not_held"
            assert await stored(store, run.id) == before

    async def test_an_ended_run_is_refused(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.ended(store, Succeeded(Payload("1")))
        before = await stored(store, run.id)
        with pytest.raises(RunEnded):
            await store.resume(run.id, at_seq=run.life.seq, by="ann")
        assert await stored(store, run.id) == before

    async def test_an_unknown_run_is_refused(self, harness: Harness) -> None:
        store = await harness.make()
        with pytest.raises(NotFound) as refused:
            await store.resume("run_0000000000000000000000000z", at_seq=1, by="ann")
        assert refused.value.code == "run.unknown"

    async def test_of_two_who_resume_at_once_one_does(self, harness: Harness) -> None:
        views = await harness.views()
        held = await harness.ended(views[0], Held("diverged", by="replay"))
        calls = [view.resume(held.id, at_seq=held.life.seq, by="ann") for view in views]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(answer) for answer in answers} == {RunRecord, Conflict}
        assert len(await events(views[0], held.id)) == held.life.seq + 1

    async def _refused(
        self, harness: Harness, why: str, *, code: str, verdict: str | None = None, behind: int = 0
    ) -> None:
        """A resume of a held run is refused with this code and changes nothing."""
        store = await harness.make()
        run = await harness.ended(store, Held(why, by="somebody"))
        before = await stored(store, run.id)
        with pytest.raises(Conflict) as refused:
            await store.resume(run.id, at_seq=run.life.seq - behind, by="ann", drafts=(_DONE,), verdict=verdict)
        assert refused.value.code == code
        assert await stored(store, run.id) == before
