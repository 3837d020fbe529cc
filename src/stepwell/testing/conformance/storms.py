"""Many at once: attempts that wait again and again, and senders who do not care.

The other contracts look at one race each; these let them happen, and see whether everybody gets to his end.
"""

from __future__ import annotations

import asyncio

from stepwell.domain.commit import Commit
from stepwell.domain.errors import Conflict, LeaseLost
from stepwell.domain.event import Draft
from stepwell.domain.outcome import NEVER, Parked, Payload, Succeeded
from stepwell.domain.run import RUNNING
from stepwell.domain.submission import KEY_LANE, Lane
from stepwell.domain.values import dumps
from stepwell.ports.notifier import QUEUE
from stepwell.ports.store import Claim, RunQuery, Store
from stepwell.testing.conformance.harness import AGENT, Harness, events, take, told

_LONG = 30.0
"""Seconds after which a run that sleeps over an arrival is given up: no test takes that long unless it fails."""

_SIGNALS = 4


class StormContract:
    """Everybody gets to his end."""

    async def test_every_signal_reaches_a_run_that_takes_one_after_the_other(self, harness: Harness) -> None:
        views = await harness.views()
        runs = [(await harness.submit(views[0])).id for _ in range(12)]
        workers = [asyncio.create_task(self._work(harness, view, len(runs))) for view in views]
        senders = [self._send(harness, views[n % 2], run_id) for n, run_id in enumerate(runs)]
        async with asyncio.timeout(_LONG):
            sent = await asyncio.gather(*senders)
            finished = await asyncio.gather(*workers)
        assert sum(finished) >= len(runs)
        for run_id, signals in zip(runs, sent, strict=True):
            taken = [data["signal"] for data in await told(views[0], run_id, "wait.closed")]
            assert taken == signals
            assert (await events(views[0], run_id))[-1].kind == "run.succeeded"

    async def test_a_lane_is_never_overcrowded_while_everybody_pushes(self, harness: Harness) -> None:
        views = await harness.views()
        lanes = (Lane(KEY_LANE, "eu", 3),)
        runs = [(await harness.submit(views[n % 2], lanes=lanes)).id for n in range(24)]
        workers = [asyncio.create_task(self._work(harness, view, len(runs), room=3)) for view in views for _ in "ab"]
        senders = [self._send(harness, views[n % 2], run_id) for n, run_id in enumerate(runs)]
        async with asyncio.timeout(_LONG):
            await asyncio.gather(*senders)
            await asyncio.gather(*workers)
        assert {(await views[0].get(run_id)).life.status for run_id in runs} == {"succeeded"}
        assert await views[0].lanes() == []

    async def test_every_family_gets_to_its_end_whatever_is_asked_of_it(self, harness: Harness) -> None:
        views = await harness.views()
        parents = [(await harness.submit(views[n % 2], agent="parent")).id for n in range(10)]
        workers = [asyncio.create_task(self._raise_families(harness, view, len(parents))) for view in views]
        meddlers = [self._meddle(views[n % 2], run_id, n) for n, run_id in enumerate(parents)]
        async with asyncio.timeout(_LONG):
            await asyncio.gather(*meddlers)
            await asyncio.gather(*workers)
        for parent_id in parents:
            children = await views[0].find(RunQuery(parent=parent_id))
            assert all(child.life.ended for child in children)
            ended = [data["child"] for data in await told(views[0], parent_id, "child.ended")]
            assert len(set(ended)) == len(ended)
            if (await views[0].get(parent_id)).life.status == "succeeded":
                assert set(ended) == {child.id for child in children}

    async def _raise_families(self, harness: Harness, store: Store, families: int) -> None:
        """Take what there is: parents make children and wait for them all, children return. Until all parents ended."""
        worker_id = await harness.worker(store, lease_seconds=1e6)
        with store.notifier.listen(QUEUE) as listener:
            while len(await store.find(RunQuery(agent="parent", ended=True))) < families:
                claims = await take(store, worker_id, agents=("parent", AGENT))
                calls = (self._grow(harness, store, claim) for claim in claims)
                for refusal in await asyncio.gather(*calls, return_exceptions=True):
                    assert refusal is None or isinstance(refusal, LeaseLost)
                if not claims:
                    await listener.wait(0.02)

    async def _grow(self, harness: Harness, store: Store, claim: Claim) -> None:
        started = sum(entry.kind == "child.started" for entry in claim.journal)
        ended = sum(entry.kind == "child.ended" for entry in claim.journal)
        if claim.run.parent is not None or 0 < started == ended:
            await store.commit(claim.lease, Commit(1, outcome=Succeeded(Payload("1"))))
            return
        if started:  # one ended, or it was paused, before it parked: it was due at once, and has seen that now
            await store.commit(claim.lease, Commit(1, outcome=Parked(NEVER, "[]", claim.run.life.seq)))
            return
        children = tuple(harness.child_of(claim.run, number) for number in range(1, 5))
        opens = tuple(harness.child_wait(child.id, join="all") for child in children)
        facts = tuple(Draft("child.started", dumps({"child": child.id}), child.parent_step) for child in children)
        opened = await store.commit(claim.lease, Commit(1, facts, opens=opens, submits=children))
        await store.commit(claim.lease, Commit(2, outcome=Parked(NEVER, "[]", opened.seq)))

    async def _meddle(self, store: Store, parent_id: str, number: int) -> None:
        """Ask something of the family while it works: of a child or of the parent."""
        while not (children := await store.find(RunQuery(parent=parent_id))):  # noqa: ASYNC110
            await asyncio.sleep(0)  # the loops of other stores are not ours to be woken by
        match number % 4:
            case 0:
                await store.cancel(children[0].id, by="ann")
            case 1:
                await store.cancel(parent_id, by="ann")
            case 2:
                await self._pause_for_a_moment(store, parent_id)
            case _:
                await asyncio.gather(*(store.cancel(child.id, by="ann") for child in children))

    async def _pause_for_a_moment(self, store: Store, run_id: str) -> None:
        while not (run := await store.get(run_id)).life.ended:
            try:
                if run.life.hold is None and not run.life.pausing:
                    run = await store.pause(run_id, by="ann")
                await store.resume(run_id, at_seq=run.life.seq, by="ann")
            except Conflict:  # it went on in between: look again
                await asyncio.sleep(0)
                continue
            return

    async def _send(self, harness: Harness, store: Store, run_id: str) -> list[str]:
        """Send one signal after the other, each of them twice."""
        signals = [harness.signal("go", str(number)) for number in range(_SIGNALS)]
        for signal in signals:
            answers = await asyncio.gather(store.signal(run_id, signal), store.signal(run_id, signal))
            assert sorted(answers) == [False, True]
        return [signal.id for signal in signals]

    async def _work(self, harness: Harness, store: Store, runs: int, room: int | None = None) -> int:
        """Take what there is and move it on, until every run has ended; how many ended here."""
        worker_id = await harness.worker(store, lease_seconds=1e6)
        finished = 0
        with store.notifier.listen(QUEUE) as listener:
            while (await store.report()).runs.get("succeeded", 0) < runs:
                claims = await take(store, worker_id)
                if room is not None:
                    assert len(claims) <= room
                    assert (await store.report()).runs.get(RUNNING, 0) <= room
                finished += sum(await asyncio.gather(*(self._move_on(harness, store, claim) for claim in claims)))
                if not claims:
                    await listener.wait(0.02)
        return finished

    async def _move_on(self, harness: Harness, store: Store, claim: Claim) -> bool:
        """Wait for the next signal, or return when all were taken."""
        opened = sum(entry.kind == "wait.opened" for entry in claim.journal)
        closed = sum(entry.kind == "wait.closed" for entry in claim.journal)
        if closed == _SIGNALS:
            await store.commit(claim.lease, Commit(1, outcome=Succeeded(Payload("1"))))
            return True
        seen = claim.run.life.seq
        if opened == closed:
            seen = (await store.commit(claim.lease, Commit(1, opens=(harness.signal_wait("go"),)))).seq
            if (await store.journal(claim.run.id))[-1].kind == "wait.closed":
                seen -= 1  # it was there already: look again
        await store.commit(claim.lease, Commit(2, outcome=Parked(NEVER, "[]", seen)))
        return False
