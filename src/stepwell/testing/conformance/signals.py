"""What `Store.signal` must do: messages arrive once, in order, and wake only whom they are for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell.domain.commit import Commit
from stepwell.domain.errors import Busy, Conflict, NotFound, RunEnded
from stepwell.domain.outcome import NEVER, HandedBack, Held, Parked, Payload, Succeeded
from stepwell.domain.run import Lease
from stepwell.domain.values import loads
from stepwell.domain.wait import MAX_SIGNALS, Signal, Wait
from stepwell.ports.store import Store
from stepwell.testing.conformance.harness import (
    Harness,
    append,
    closed_waits,
    events,
    is_due,
    kinds,
    stored,
    take,
    told,
)


class SignalContract:
    """Messages arrive at runs."""

    async def test_a_signal_is_a_fact_of_the_run_at_once(self, harness: Harness) -> None:
        one, other = await harness.views()
        run = await harness.submit(one)
        harness.clock.advance(1)
        assert await other.signal(run.id, Signal("sig-1", "go", Payload('{"ok":true}'), by="ann")) is True
        entry = (await events(one, run.id))[-1]
        assert (entry.kind, entry.step, entry.at) == ("signal.received", None, harness.clock.now())
        assert loads(entry.data) == {"signal": "sig-1", "name": "go", "by": "ann", "value": {"ok": True}}

    async def test_a_value_that_lies_elsewhere_is_referred_to(self, harness: Harness) -> None:
        store = await harness.make()
        ref = await store.put_blob(b'{"large":true}')
        run = await harness.submit(store)
        await store.signal(run.id, Signal("sig-1", "go", Payload(None, ref, 14)))
        data = loads((await events(store, run.id))[-1].data)
        assert isinstance(data, dict)
        assert data["ref"] == {"blob": ref, "size": 14, "of": "value"}

    async def test_the_signal_that_a_run_waits_for_closes_the_wait_and_makes_it_due(self, harness: Harness) -> None:
        one, other = await harness.views()
        wait = harness.signal_wait("go", step="0/7")
        run = await harness.parked(one, wait)
        worker_id = await harness.worker(one)
        assert not await is_due(one, worker_id, run.id)
        signal = harness.signal("go")
        assert await other.signal(run.id, signal)
        received, closed = (await events(one, run.id))[-2:]
        assert (received.kind, closed.kind, closed.step) == ("signal.received", "wait.closed", "0/7")
        assert loads(closed.data) == {"wait": wait.id, "outcome": "received", "signal": signal.id}
        life = (await one.get(run.id)).life
        assert (life.status, life.available_at) == ("waiting", harness.clock.now())
        assert await is_due(one, worker_id, run.id)

    async def test_a_signal_that_a_run_does_not_wait_for_does_not_wake_it(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait("go"), harness.question())
        for name in ("stop", "GO", "go ", "Ship it?"):
            assert await store.signal(run.id, harness.signal(name))
        assert (await kinds(store, run.id)).count("wait.closed") == 0
        assert (await store.get(run.id)).life.available_at == NEVER
        assert await take(store, await harness.worker(store)) == []

    async def test_a_signal_wakes_only_its_own_run(self, harness: Harness) -> None:
        store = await harness.make()
        run, other = [await harness.parked(store, harness.signal_wait("go")) for _ in range(2)]
        before = await stored(store, other.id)
        await store.signal(run.id, harness.signal("go"))
        assert [claim.run.id for claim in await take(store, await harness.worker(store))] == [run.id]
        assert await stored(store, other.id) == before

    async def test_of_two_waits_for_one_name_the_older_is_closed_first(self, harness: Harness) -> None:
        store = await harness.make()
        waits = [harness.signal_wait("go", step=f"0/{number}") for number in range(3)]
        run = await harness.parked(store, *waits)
        for _ in waits:
            await store.signal(run.id, harness.signal("go"))
        assert await closed_waits(store, run.id) == [wait.id for wait in waits]

    async def test_a_run_that_was_woken_is_woken_by_nothing_more(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait("go"))
        await store.signal(run.id, harness.signal("go"))
        due_at = (await store.get(run.id)).life.available_at
        harness.clock.advance(5)
        await store.signal(run.id, harness.signal("go"))
        assert (await store.get(run.id)).life.available_at == due_at

    async def test_an_unknown_run_is_refused(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, tenant="acme")
        for run_id, tenant in ((run.id, ""), (run.id, "other"), ("run_0000000000000000000000000z", "acme")):
            with pytest.raises(NotFound) as refused:
                await store.signal(run_id, harness.signal(), tenant=tenant)
            assert refused.value.code == "run.unknown"
        assert await kinds(store, run.id) == ["run.queued"]
        assert await store.signal(run.id, harness.signal(), tenant="acme")

    async def test_an_ended_run_receives_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.ended(store, Succeeded(Payload("1")))
        before = await stored(store, run.id)
        with pytest.raises(RunEnded):
            await store.signal(run.id, harness.signal())
        assert await stored(store, run.id) == before


class KeptSignalContract:
    """What nobody waits for yet is kept."""

    async def test_a_wait_takes_what_came_before_it_in_the_same_write(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        signal = harness.signal("go")
        await other.signal(lease.run_id, signal)
        wait = harness.signal_wait("go", step="0/3")
        answer = await one.commit(lease, Commit(1, opens=(wait,)))
        opened, closed = (await events(other, lease.run_id))[-2:]
        assert (opened.kind, opened.step, opened.data) == ("wait.opened", "0/3", wait.data)
        assert (closed.kind, closed.step) == ("wait.closed", "0/3")
        assert loads(closed.data) == {"wait": wait.id, "outcome": "received", "signal": signal.id}
        assert answer.seq == closed.seq

    async def test_signals_of_one_name_are_taken_in_the_order_of_their_arrival(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        signals = [harness.signal(name) for name in ("go", "stop", "go", "stop", "go")]
        for signal in signals:
            await store.signal(lease.run_id, signal)
        for number, name in enumerate(("go", "go", "stop", "go", "stop"), 1):
            await store.commit(lease, Commit(number, opens=(harness.signal_wait(name),)))
        expected = [signals[place].id for place in (0, 2, 1, 4, 3)]
        assert await taken_signals(store, lease.run_id) == expected

    async def test_a_signal_is_taken_once(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.signal(lease.run_id, harness.signal("go"))
        waits = harness.signal_wait("go"), harness.signal_wait("go")
        await store.commit(lease, Commit(1, opens=waits))
        assert await closed_waits(store, lease.run_id) == [waits[0].id]
        later = harness.signal("go")
        await store.signal(lease.run_id, later)
        assert await closed_waits(store, lease.run_id) == [wait.id for wait in waits]
        assert (await taken_signals(store, lease.run_id))[-1] == later.id

    async def test_a_wait_takes_nothing_that_came_for_another_run(self, harness: Harness) -> None:
        store = await harness.make()
        lease, other = await harness.started(store), await harness.started(store)
        await store.signal(other.run_id, harness.signal("go"))
        await store.commit(lease, Commit(1, opens=(harness.signal_wait("go"),)))
        assert await closed_waits(store, lease.run_id) == []

    async def test_what_was_kept_outlasts_attempts(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store)
        signal = harness.signal("go")
        await store.signal(run.id, signal)
        worker_id = await harness.worker(store)
        [claim] = await take(store, worker_id)
        await store.commit(claim.lease, Commit(1, outcome=HandedBack()))
        [claim] = await take(store, worker_id)
        await store.commit(claim.lease, Commit(1, opens=(harness.signal_wait("go"),)))
        assert await taken_signals(store, run.id) == [signal.id]

    async def test_a_held_run_keeps_what_arrives_and_is_due_when_it_is_resumed(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait("go"))
        worker_id = await harness.worker(store)
        await store.pause(run.id, by="ann")
        await store.signal(run.id, harness.signal("go"))
        life = (await store.get(run.id)).life
        assert (life.status, life.hold) == ("waiting", "paused")
        assert len(await closed_waits(store, run.id)) == 1
        assert not await is_due(store, worker_id, run.id)
        await store.resume(run.id, at_seq=life.seq, by="ann")
        assert await is_due(store, worker_id, run.id)

    async def test_a_held_run_that_gets_what_it_does_not_wait_for_sleeps_on_when_resumed(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait("go"))
        await store.pause(run.id, by="ann")
        await store.signal(run.id, harness.signal("stop"))
        life = (await store.get(run.id)).life
        await store.resume(run.id, at_seq=life.seq, by="ann")
        assert not await is_due(store, await harness.worker(store), run.id)

    @pytest.mark.parametrize("why", ["diverged", "in_doubt"])
    async def test_a_run_held_in_its_work_keeps_what_arrives(self, harness: Harness, why: str) -> None:
        store = await harness.make()
        run = await harness.ended(store, Held(why, by="somebody"))
        assert await store.signal(run.id, harness.signal("go"))
        life = (await store.get(run.id)).life
        assert (life.shown, life.seq) == (why, run.life.seq + 1)

    async def test_a_run_that_keeps_too_many_refuses_more(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        signals = [harness.signal("go") for _ in range(MAX_SIGNALS)]
        assert all(await asyncio.gather(*(store.signal(lease.run_id, signal) for signal in signals)))
        before = await stored(store, lease.run_id)
        with pytest.raises(Busy) as refused:
            await store.signal(lease.run_id, harness.signal("stop"))
        assert (refused.value.code, refused.value.retryable) == ("signal.full", True)
        assert await store.signal(lease.run_id, signals[0]) is False
        assert await stored(store, lease.run_id) == before

    async def test_a_full_run_still_receives_what_it_waits_for_and_has_room_when_it_took_some(
        self, harness: Harness
    ) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        calls = [store.signal(lease.run_id, harness.signal("go")) for _ in range(MAX_SIGNALS)]
        await asyncio.gather(*calls)
        await store.commit(lease, Commit(1, opens=(harness.signal_wait("stop"),)))
        assert await store.signal(lease.run_id, harness.signal("stop"))
        with pytest.raises(Busy):
            await store.signal(lease.run_id, harness.signal("stop"))
        await store.commit(lease, Commit(2, opens=(harness.signal_wait("go"),)))
        assert await store.signal(lease.run_id, harness.signal("stop"))


class DuplicateSignalContract:
    """The same signal is received once."""

    @pytest.mark.parametrize("waits", [True, False], ids=["awaited", "kept"])
    async def test_a_signal_that_was_received_is_not_received_again(self, harness: Harness, waits: bool) -> None:
        one, other = await harness.views()
        run = await harness.parked(one, harness.signal_wait("go" if waits else "stop"))
        signal = harness.signal("go")
        assert await one.signal(run.id, signal) is True
        before = await stored(one, run.id)
        harness.clock.advance(1)
        assert await other.signal(run.id, signal) is False
        assert await stored(one, run.id) == before

    async def test_a_signal_that_was_taken_is_not_received_again(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        signal = harness.signal("go")
        await store.signal(lease.run_id, signal)
        await store.commit(lease, Commit(1, opens=(harness.signal_wait("go"), harness.signal_wait("go"))))
        assert await store.signal(lease.run_id, signal) is False
        assert len(await taken_signals(store, lease.run_id)) == 1

    async def test_of_many_who_send_one_signal_one_is_told_that_it_arrived(self, harness: Harness) -> None:
        views = await harness.views()
        run = await harness.parked(views[0], harness.signal_wait("go"), harness.signal_wait("go"))
        signal = harness.signal("go")
        answers = await asyncio.gather(*(views[n % 2].signal(run.id, signal) for n in range(20)))
        assert sorted(answers) == [*[False] * 19, True]
        assert (await kinds(views[0], run.id)).count("signal.received") == 1

    async def test_the_same_id_means_nothing_to_another_run(self, harness: Harness) -> None:
        store = await harness.make()
        signal = harness.signal("go")
        assert await store.signal((await harness.submit(store)).id, signal)
        assert await store.signal((await harness.submit(store)).id, signal)

    @pytest.mark.parametrize("change", [{"name": "stop"}, {"value": Payload("2")}], ids=["name", "value"])
    async def test_the_same_id_with_another_name_or_value_is_a_conflict(
        self, harness: Harness, change: dict[str, Any]
    ) -> None:
        store = await harness.make()
        run = await harness.parked(store, harness.signal_wait("stop"))
        signal = harness.signal("go")
        await store.signal(run.id, signal)
        before = await stored(store, run.id)
        with pytest.raises(Conflict) as refused:
            await store.signal(run.id, signal._replace(**change))
        assert refused.value.code == "signal.conflict"
        assert await stored(store, run.id) == before

    async def test_a_signal_that_was_received_is_known_after_the_end(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        signal = harness.signal("go")
        await store.signal(lease.run_id, signal)
        await store.commit(lease, Commit(1, outcome=Succeeded(Payload("1"))))
        assert await store.signal(lease.run_id, signal) is False


class ArrivalContract:
    """Messages that arrive while somebody executes the run."""

    async def test_a_signal_does_not_disturb_the_holder(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        assert (await append(one, lease, 1, "first")).seq == 3
        await other.signal(lease.run_id, harness.signal())
        assert (await append(one, lease, 2, "second")).seq == 5
        assert await kinds(one, lease.run_id) == [
            "run.queued",
            "run.started",
            "custom.note",
            "signal.received",
            "custom.note",
        ]

    async def test_what_the_holder_waits_for_is_closed_while_it_runs(self, harness: Harness) -> None:
        one, other = await harness.views()
        lease = await harness.started(one)
        wait = harness.signal_wait("go")
        await one.commit(lease, Commit(1, opens=(wait,)))
        await other.signal(lease.run_id, harness.signal("go"))
        assert await closed_waits(one, lease.run_id) == [wait.id]
        life = (await one.get(lease.run_id)).life
        assert (life.status, life.worker) == ("running", lease.worker)

    async def test_signals_and_writes_at_once_are_numbered_without_gaps(self, harness: Harness) -> None:
        views = await harness.views()
        lease = await harness.started(views[0])
        calls = [
            call
            for number in range(1, 31)
            for call in (
                append(views[0], lease, number, str(number)),
                views[number % 2].signal(lease.run_id, harness.signal("go", str(number))),
            )
        ]
        await asyncio.gather(*calls)
        entries = (await events(views[1], lease.run_id))[2:]
        notes = [entry for entry in entries if entry.kind == "custom.note"]
        assert [loads(entry.data) for entry in notes] == [{"text": str(number)} for number in range(1, 31)]
        assert len(entries) == 60

    async def test_signals_from_one_sender_arrive_in_the_order_of_the_calls(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        signals = [harness.signal("go", str(number)) for number in range(30)]
        await asyncio.gather(*(store.signal(lease.run_id, signal) for signal in signals))
        waits = tuple(harness.signal_wait("go") for _ in signals)
        await store.commit(lease, Commit(1, opens=waits))
        assert await taken_signals(store, lease.run_id) == [signal.id for signal in signals]

    async def test_a_run_that_backs_off_is_not_hurried_by_a_signal(self, harness: Harness) -> None:
        store = await harness.make()
        run = await harness.submit(store, delay=60)
        await store.signal(run.id, harness.signal())
        assert (await store.get(run.id)).life.available_at == run.life.available_at

    async def test_one_who_lost_the_lease_opens_nothing(self, harness: Harness) -> None:
        store = await harness.make()
        lease = await harness.started(store)
        await store.commit(lease, Commit(1, outcome=Parked(NEVER, "[]")))
        wait = harness.signal_wait("go")
        await self._refused(store, lease, wait)
        await store.signal(lease.run_id, harness.signal("go"))
        assert await closed_waits(store, lease.run_id) == []

    async def _refused(self, store: Store, lease: Lease, wait: Wait) -> None:
        [answer] = await asyncio.gather(store.commit(lease, Commit(2, opens=(wait,))), return_exceptions=True)
        assert getattr(answer, "code", None) == "lease.lost"


async def taken_signals(store: Store, run_id: str) -> list[object]:
    """The signals that the journal says closed a wait, in that order."""
    return [data["signal"] for data in await told(store, run_id, "wait.closed") if data["outcome"] == "received"]
