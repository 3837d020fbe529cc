"""The worker: how many runs it takes and which, what it gives back, and how it stops."""

import asyncio
import contextvars
import threading
from datetime import timedelta
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import StoreUnavailable, StoreUnusable
from stepwell.domain.event import Entry
from stepwell.domain.retry import Retry
from stepwell.engine import worker as worker_module
from stepwell.engine.submission import Options, Submitter
from stepwell.engine.worker import Worker
from stepwell.ports.context import Context
from stepwell.ports.notifier import QUEUE
from stepwell.ports.store import ClaimRequest, Claims, Heartbeat, WorkerInfo
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import PATIENCE, Crash, Lives
from tests.unit.engine.samples import double, effect, executed


class Gate:
    """Agents that wait until they are let through, and say that they are there."""

    def __init__(self) -> None:
        self.app = App("test")
        self.inside: list[str] = []
        self.most = 0
        self.opened = asyncio.Event()

        @self.app.agent
        async def agent(ctx: Context, name: str) -> str:
            self.inside.append(name)
            self.most = max(self.most, len(self.inside))
            try:
                await self.opened.wait()
            finally:
                self.inside.remove(name)
            return name

        self.agent = agent

    async def filled(self, count: int) -> None:
        """Wait until so many are inside."""
        async with asyncio.timeout(PATIENCE):
            while len(self.inside) < count:
                await asyncio.sleep(0)


async def turns_of_the_loop(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints alone must be enough: a lost one would cost the whole patience of a test."""
    monkeypatch.setattr(worker_module, "FULL_POLL", 2 * PATIENCE)


class TestCapacity:
    @pytest.mark.parametrize("capacity", [1, 3])
    async def test_no_more_runs_at_once_than_the_capacity(self, capacity: int) -> None:
        gate = Gate()
        lives = Lives(gate.app, capacity=capacity)
        runs = [await lives.submit(value=f"{n}") for n in range(7)]
        async with lives.working() as worker:
            await gate.filled(capacity)
            await turns_of_the_loop()
            assert (len(gate.inside), worker.running) == (capacity, capacity)
            gate.opened.set()
            for run in runs:
                await lives.settled(run)
        assert gate.most == capacity

    async def test_a_full_worker_takes_the_next_as_soon_as_a_slot_is_free(self) -> None:
        gate = Gate()
        lives = Lives(gate.app, capacity=1)
        async with lives.working():
            first = await lives.submit(value="first")
            await gate.filled(1)
            second = await lives.submit(value="second")
            await turns_of_the_loop()
            assert (await lives.record(second)).life.status == "queued"
            gate.opened.set()
            await lives.settled(first)
            await lives.settled(second)

    async def test_many_short_runs_all_come_through(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context, n: int) -> int:
            return await ctx.step(double, n)

        lives = Lives(app, capacity=4)
        async with lives.working():
            runs = [await lives.submit(value=n) for n in range(60)]
            for n, run in enumerate(runs):
                await lives.settled(run)
                assert await lives.output(run) == 2 * n
        assert len(executed) == 60

    async def test_two_workers_never_execute_the_same_run(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context, n: int) -> int:
            return await ctx.step(double, n)

        lives = Lives(app, capacity=2)
        runs = [await lives.submit(value=n) for n in range(40)]
        async with lives.working(), lives.working(), lives.working():
            for run in runs:
                await lives.settled(run)
        assert set(executed.values()) == {1}


class TestOrder:
    async def test_priority_goes_first_and_then_age(self) -> None:
        gate = Gate()
        lives = Lives(gate.app, capacity=1)
        runs = {
            name: await lives.submit(value=name, priority=priority)
            for name, priority in [("a", 0), ("b", 5), ("c", 0), ("d", -5), ("e", 5)]
        }
        seen: list[str] = []
        async with lives.working():
            for _ in range(5):
                await gate.filled(1)
                seen.append(gate.inside[0])
                gate.opened.set()
                await lives.settled(runs[seen[-1]])
                gate.opened.clear()
        assert seen == ["b", "e", "a", "c", "d"]

    async def test_a_delayed_run_starts_when_it_is_due_and_not_before(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            effect("started")

        clock = ManualClock()
        lives = Lives(app, clock=clock, lease_seconds=1e6)
        run = await lives.submit(delay=timedelta(hours=1))
        async with lives.working() as worker:
            await turns_of_the_loop()
            clock.advance(3599)
            worker._wake()
            await turns_of_the_loop()
            assert executed == {}
            clock.advance(1)
            worker._wake()
            await lives.settled(run)
        assert executed == {"started": 1}

    async def test_the_worker_wakes_by_itself_for_a_run_that_becomes_due(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None: ...

        lives = Lives(app)
        async with lives.working():
            run = await lives.submit(delay=0.01)
            await lives.settled(run)

    async def test_a_worker_takes_only_runs_of_agents_it_knows(self) -> None:
        gate = Gate()
        other = App("other")

        @other.agent
        async def stranger(ctx: Context) -> None: ...

        lives = Lives(gate.app)
        run = await lives.submit(value="a")
        async with lives.working(other):
            await turns_of_the_loop()
            assert (await lives.record(run)).life.status == "queued"


class TestFastPath:
    def submitter(self, lives: Lives, worker: Worker) -> Submitter:
        return Submitter(lives.store, clock=lives.clock, entropy=lives.entropy, worker=worker)

    async def submit(self, lives: Lives, worker: Worker, value: Any, **options: Any) -> Any:
        runnable = lives.runnables(lives.app)["agent"]
        return await self.submitter(lives, worker).submit(runnable, value, Options(**options))

    async def test_a_free_slot_takes_the_run_in_the_write_that_creates_it(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        async with lives.working() as worker:
            submitted = await self.submit(lives, worker, "a")
            assert submitted.lease is not None
            assert submitted.run.life.status == "running"
            kinds = [entry.kind for entry in await lives.journal(submitted.run.id)]
            assert kinds == [event.RUN_QUEUED, event.RUN_STARTED]
            gate.opened.set()
            await lives.settled(submitted.run.id)

    async def test_without_a_free_slot_it_is_queued(self) -> None:
        gate = Gate()
        lives = Lives(gate.app, capacity=1)
        async with lives.working() as worker:
            first = await self.submit(lives, worker, "a")
            second = await self.submit(lives, worker, "b")
            assert (first.lease is None, second.lease is None) == (False, True)
            gate.opened.set()
            await lives.settled(second.run.id)

    @pytest.mark.parametrize("options", [{"delay": 3600}, {"idempotency_key": "a"}], ids=["delayed", "known already"])
    async def test_a_run_that_must_not_start_now_gives_the_slot_back(self, options: Any) -> None:
        gate = Gate()
        lives = Lives(gate.app, capacity=1)
        if "idempotency_key" in options:
            await lives.submit(value="a", delay=3600, **options)
        async with lives.working() as worker:
            submitted = await self.submit(lives, worker, "a", **options)
            assert submitted.lease is None
            slot = worker.offer_slot()
            assert slot is not None
            assert slot.worker == worker.id
            assert worker.offer_slot() is None
            worker.withdraw_slot(slot)
            again = worker.offer_slot()
            assert again is not None
            worker.withdraw_slot(again)

    async def test_a_submission_that_fails_gives_the_slot_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = Gate()
        lives = Lives(gate.app, capacity=1)

        async def away(submission: Any) -> Any:
            raise StoreUnavailable("away")

        async with lives.working() as worker:
            monkeypatch.setattr(lives.store, "submit", away)
            with pytest.raises(StoreUnavailable):
                await self.submit(lives, worker, "a")
            slot = worker.offer_slot()
            assert slot is not None
            worker.withdraw_slot(slot)

    async def test_a_worker_that_is_leaving_offers_no_slot_and_hands_back_what_it_was_given(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        worker = lives.make_worker()
        await worker.start()
        slot = worker.offer_slot()
        assert slot is not None
        run = await lives.submit(value="a")
        claims = await lives.store.claim(ClaimRequest(slot.worker, 1, ("agent",)))
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0)
        assert worker.offer_slot() is None
        worker.accept(slot, claims.taken[0], None)
        await stopping
        assert [entry.kind for entry in await lives.journal(run)][-1] == event.RUN_HANDED_BACK
        assert gate.inside == []

    async def test_what_the_submitters_task_carries_does_not_reach_the_agent(self) -> None:
        user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            return user.get()

        lives = Lives(app)
        async with lives.working() as worker:
            user.set("ada")
            submitted = await self.submit(lives, worker, None)
            assert submitted.lease is not None
            await lives.settled(submitted.run.id)
        assert await lives.output(submitted.run.id) == "nobody"


class TestOnlyOwn:
    async def test_only_adopted_runs_are_executed(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        gate.opened.set()
        others, own = await lives.submit(value="others"), await lives.submit(value="own")
        async with lives.working(only_own=True) as worker:
            await turns_of_the_loop()
            worker.adopt(own)
            await lives.settled(own)
            await turns_of_the_loop()
        assert (await lives.record(others)).life.status == "queued"

    async def test_an_adopted_run_is_tried_again_here(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(3, first_delay=0))
        async def agent(ctx: Context) -> None:
            if effect("attempt") < 3:
                raise OSError("volatile")

        lives = Lives(app)
        run = await lives.submit()
        async with lives.working(only_own=True) as worker:
            worker.adopt(run)
            assert (await lives.settled(run)).life.status == "succeeded"
            await worker.idle()
            assert worker._own == set(), "a run that has ended need not be asked for any more"

    async def test_an_adopted_run_is_taken_from_a_dead_worker(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        run = await lives.submit(value="a")
        dying = lives.make_worker()
        await dying.start()
        await gate.filled(1)
        async with lives.working(only_own=True) as worker:
            worker.adopt(run)
            await turns_of_the_loop()
            await dying.kill()
            worker._wake()
            gate.opened.set()
            assert (await lives.settled(run)).life.status == "succeeded"


class TestDrain:
    async def test_running_attempts_may_finish_and_nothing_new_is_taken(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        first = await lives.submit(value="a")
        worker = lives.make_worker()
        await worker.start()
        await gate.filled(1)
        stopping = asyncio.create_task(worker.stop())
        await turns_of_the_loop()
        later = await lives.submit(value="b")
        await turns_of_the_loop()
        assert gate.inside == ["a"]
        gate.opened.set()
        await stopping
        assert (await lives.record(first)).life.status == "succeeded"
        assert (await lives.record(later)).life.status == "queued"

    async def test_what_does_not_finish_in_time_is_handed_back_and_goes_on_elsewhere(self) -> None:
        app = App("test")
        begun = asyncio.Event()
        opened = asyncio.Event()

        async def wait() -> str:
            begun.set()
            await opened.wait()
            return "done"

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            return [await ctx.step(double, 1), await ctx.step(wait)]

        lives = Lives(app)
        run = await lives.submit()
        worker = lives.make_worker()
        await worker.start()
        await begun.wait()
        await worker.stop(drain=0.01)
        assert [entry.kind for entry in await lives.journal(run)][-1] == event.RUN_HANDED_BACK
        life = (await lives.record(run)).life
        assert (life.status, life.errors, life.lost, life.expiries) == ("queued", 0, 0, 0)
        opened.set()
        await lives.live(run)
        assert await lives.output(run) == [2, "done"]
        assert executed == {"double 1": 1}
        assert (await lives.record(run)).life.attempt == 1

    async def test_an_agent_that_catches_the_cancellation_cannot_go_on(self) -> None:
        app = App("test")
        begun = asyncio.Event()

        @app.agent
        async def agent(ctx: Context) -> str:
            begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                await ctx.step(double, 1)
            return "done"

        lives = Lives(app)
        run = await lives.submit()
        worker = lives.make_worker()
        await worker.start()
        await begun.wait()
        await worker.stop(drain=0)
        assert executed == {}
        assert (await lives.record(run)).life.status == "queued"

    async def test_a_stubborn_agent_is_left_behind_and_its_run_handed_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker_module, "CANCEL_GRACE", 0.02)
        app = App("test")
        begun = asyncio.Event()
        release = asyncio.Event()
        tasks: list[asyncio.Task[Any]] = []

        @app.agent
        async def agent(ctx: Context) -> str:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            begun.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    effect("ignored")
            return await ctx.step(str, 5)

        lives = Lives(app)
        run = await lives.submit()
        worker = lives.make_worker()
        await worker.start()
        await begun.wait()
        await worker.stop(drain=0)
        record = await lives.record(run)
        release.set()
        await asyncio.wait(tasks)
        assert executed["ignored"] >= 2
        assert record.life.status == "queued"
        assert record.life.leased > 0
        assert [entry.kind for entry in await lives.journal(run)][-1] == event.RUN_HANDED_BACK

    async def test_stopping_twice_is_fine(self) -> None:
        lives = Lives(Gate().app)
        worker = lives.make_worker()
        await worker.stop()
        await worker.start()
        await worker.stop()
        await worker.stop()
        assert await lives.store.workers() == []

    async def test_a_stop_that_was_cancelled_is_finished_by_the_next(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        run = await lives.submit(value="a")
        worker = lives.make_worker()
        await worker.start()
        await gate.filled(1)
        stopping = asyncio.create_task(worker.stop())
        await turns_of_the_loop()
        stopping.cancel()
        await asyncio.wait([stopping])
        await worker.stop(drain=0)
        assert await lives.store.workers() == []
        assert [entry.kind for entry in await lives.journal(run)][-1] == event.RUN_HANDED_BACK

    async def test_nothing_is_left_running(self) -> None:
        before = {thread.name for thread in threading.enumerate()}
        mine = asyncio.all_tasks()
        gate = Gate()
        gate.opened.set()
        lives = Lives(gate.app)
        run = await lives.submit(value="a")
        async with lives.working():
            await lives.settled(run)
        assert {thread.name for thread in threading.enumerate()} - before <= {"asyncio_0"}
        assert asyncio.all_tasks() == mine


class TestLeases:
    async def test_a_lost_lease_cancels_the_attempt_and_nothing_more_is_written(self) -> None:
        gate = Gate()
        lives = Lives(gate.app, lease_seconds=0.05)
        run = await lives.submit(value="a")
        async with lives.working() as worker:
            await gate.filled(1)
            lives.store.abandon_worker(worker.id)
            taker = await lives.store.claim(await _other_worker(lives))
            assert [claim.run.id for claim in taker.taken] == [run]
            await worker.idle()
            assert gate.inside == []
        kinds = [entry.kind for entry in await lives.journal(run)]
        assert kinds == [event.RUN_QUEUED, event.RUN_STARTED, event.RUN_LOST, event.RUN_STARTED]

    async def test_no_step_starts_when_the_last_heartbeat_is_too_old(self) -> None:
        app = App("test")
        go_on = asyncio.Event()
        begun = asyncio.Event()

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(double, 1)
            begun.set()
            await go_on.wait()
            await ctx.step(double, 2)

        clock = ManualClock()
        lives = Lives(app, clock=clock, lease_seconds=30)
        run = await lives.submit()
        worker = lives.make_worker()
        await worker.start()
        await begun.wait()
        clock.advance(24)
        go_on.set()
        await worker.idle()
        assert executed == {"double 1": 1}
        assert worker.offer_slot() is None
        later = await lives.submit()
        await turns_of_the_loop()
        assert (await lives.record(later)).life.status == "queued"
        await worker.kill()
        assert (await lives.record(run)).life.status == "running"

    async def test_a_run_that_was_given_up_so_is_taken_up_again_by_the_same_worker(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = App("test")
        begun, go_on = asyncio.Event(), asyncio.Event()

        @app.agent
        async def agent(ctx: Context) -> int:
            begun.set()
            await go_on.wait()
            return await ctx.step(double, 4)

        clock = ManualClock()
        lives = Lives(app, clock=clock, lease_seconds=0.03)
        heartbeat = lives.store.heartbeat
        away = True

        def beat(worker_id: str, *, lease_seconds: float) -> Heartbeat:
            if away:
                raise StoreUnavailable("away")
            return heartbeat(worker_id, lease_seconds=lease_seconds)

        monkeypatch.setattr(lives.store, "heartbeat", beat)
        run = await lives.submit()
        async with lives.working() as worker:
            await begun.wait()
            clock.advance(0.025)
            go_on.set()
            await worker.idle()
            assert executed == {}
            away = False
            async with asyncio.timeout(PATIENCE):
                while not (await lives.record(run)).life.ended:
                    clock.advance(0.002)
                    worker._wake()
                    await asyncio.sleep(0.001)
        assert await lives.output(run) == 8
        assert executed == {"double 4": 1}

    async def test_a_step_may_start_just_before(self) -> None:
        app = App("test")
        clock = ManualClock()

        @app.agent
        async def agent(ctx: Context) -> None:
            clock.advance(23.9)
            await ctx.step(double, 1)

        lives = Lives(app, clock=clock, lease_seconds=30)
        await lives.output(await lives.run())
        assert executed == {"double 1": 1}

    async def test_a_run_that_is_held_without_our_knowing_is_handed_back(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        run = await lives.submit(value="a", priority=1)
        worker = lives.make_worker(capacity=1)
        await lives.store.open_worker(WorkerInfo(worker.id, "here", 1, 1, 0), lease_seconds=30)
        [claim] = (await lives.store.claim(ClaimRequest(worker.id, 1, ("agent",)))).taken
        reply = lives.store.heartbeat(worker.id, lease_seconds=30)
        assert set(reply.held) == {run}
        worker._on_heartbeat(reply, lives.clock.elapsed())
        await turns_of_the_loop()
        assert (await lives.record(run)).life.status == "running", "a claim may be under way"
        worker._on_heartbeat(reply, lives.clock.elapsed())
        await turns_of_the_loop()
        assert (await lives.record(run)).life.status == "queued"
        assert claim.lease.fence == 1

    async def test_only_what_was_being_asked_for_then_may_explain_a_run_that_is_not_known(self) -> None:
        lives = Lives(Gate().app)
        run = await lives.submit(value="a")
        worker = lives.make_worker(capacity=2)
        await lives.store.open_worker(WorkerInfo(worker.id, "here", 1, 2, 0), lease_seconds=30)
        await lives.store.claim(ClaimRequest(worker.id, 1, ("agent",)))
        reply = lives.store.heartbeat(worker.id, lease_seconds=30)
        then = worker.offer_slot()
        assert then is not None
        for _ in range(3):
            worker._on_heartbeat(reply, lives.clock.elapsed())
            await turns_of_the_loop()
        assert (await lives.record(run)).life.status == "running", "its answer may be on the way"
        assert worker.offer_slot() is not None
        worker.withdraw_slot(then)
        worker._on_heartbeat(reply, lives.clock.elapsed())
        await turns_of_the_loop()
        assert (await lives.record(run)).life.status == "queued"

    async def test_a_claim_under_way_is_not_taken_for_a_forgotten_run(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        run = await lives.submit(value="a")
        worker = lives.make_worker(capacity=1)
        await worker.start()
        await gate.filled(1)
        assert worker.running == 1
        reply = Heartbeat({})
        worker._on_heartbeat(reply, 0.0)
        await turns_of_the_loop()
        assert worker.running == 1, "the heartbeat was asked before the run was claimed"
        worker._on_heartbeat(reply, lives.clock.elapsed() + 1)
        await worker.idle()
        assert gate.inside == []
        await worker.kill()
        assert (await lives.record(run)).life.status == "running"

    async def test_a_newer_fence_means_that_the_lease_is_lost(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        run = await lives.submit(value="a")
        worker = lives.make_worker()
        await worker.start()
        await gate.filled(1)
        control = lives.store.heartbeat(worker.id, lease_seconds=30).held[run][1]
        worker._on_heartbeat(Heartbeat({run: (2, control)}), 0.0)
        await worker.idle()
        await worker.kill()

    async def test_a_run_past_its_time_is_ended_by_the_heartbeat_where_no_timer_did(self) -> None:
        app = App("test")
        begun = asyncio.Event()

        @app.agent(timeout=100)
        async def agent(ctx: Context) -> None:
            begun.set()
            await asyncio.get_running_loop().create_future()

        clock = ManualClock()
        lives = Lives(app, clock=clock, lease_seconds=1e6)
        run = await lives.submit()
        worker = lives.make_worker()
        await worker.start()
        await begun.wait()
        clock.advance(101)
        worker._on_heartbeat(lives.store.heartbeat(worker.id, lease_seconds=1e6), clock.elapsed())
        await lives.settled(run)
        assert (await lives.record(run)).life.status == "timed_out"
        await worker.stop()

    async def test_our_own_expired_run_can_be_claimed_again(self) -> None:
        gate = Gate()
        clock = ManualClock()
        lives = Lives(gate.app, clock=clock, lease_seconds=30)
        run = await lives.submit(value="a")
        worker = lives.make_worker()
        await worker.start()
        await gate.filled(1)
        clock.advance(31)
        worker._heart._confirmed_at = clock.elapsed()
        worker._wake()
        async with asyncio.timeout(PATIENCE):
            while (await lives.record(run)).life.fence == 1:
                await asyncio.sleep(0)
        gate.opened.set()
        assert (await lives.settled(run)).life.status == "succeeded"
        await worker.stop()


async def _other_worker(lives: Lives) -> ClaimRequest:
    other = lives.make_worker()
    await lives.store.open_worker(WorkerInfo(other.id, "there", 2, 1, 0), lease_seconds=30)
    return ClaimRequest(other.id, 1, ("agent",))


class TestTrouble:
    @pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("odd"), KeyError("odd")])
    async def test_a_claim_that_fails_is_tried_again(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(worker_module, "_AFTER_STORE_ERROR", 0.0)
        gate = Gate()
        gate.opened.set()
        lives = Lives(gate.app)
        claim = lives.store.claim
        failures = [error, error]

        async def claim_badly(request: ClaimRequest) -> Claims:
            if failures:
                raise failures.pop()
            return await claim(request)

        monkeypatch.setattr(lives.store, "claim", claim_badly)
        run = await lives.submit(value="a")
        async with lives.working():
            assert (await lives.settled(run)).life.status == "succeeded"
        assert "claiming failed" in caplog.text

    async def test_a_store_that_is_unusable_ends_the_worker_and_what_it_executes(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        run = await lives.submit(value="a")
        worker = lives.make_worker()
        await worker.start()
        await gate.filled(1)
        broken = StoreUnusable("the disk failed")
        claims = 0

        async def refuse(*_: object) -> Any:
            nonlocal claims
            claims += 1
            raise broken

        for verb in ("claim", "commit", "close_worker"):
            monkeypatch.setattr(lives.store, verb, refuse)
        worker._wake()
        async with asyncio.timeout(PATIENCE):
            assert await worker.breakdown.wait() is broken
            while worker.running:
                await asyncio.sleep(0)
        asked = claims
        assert worker.offer_slot() is None
        await worker.stop()
        assert claims == asked, "it was asked again"
        assert [each.message for each in caplog.records if each.levelname == "ERROR"] == [
            "the store is unusable, nothing more is executed here: the disk failed"
        ]
        assert (await lives.record(run)).life.status == "running"  # another worker will find this one gone

    async def test_a_journal_that_cannot_be_read_holds_its_run_and_no_other(self) -> None:
        gate = Gate()
        gate.opened.set()
        lives = Lives(gate.app)
        bad, good = await lives.submit(value="bad"), await lives.submit(value="good")
        journal = lives.store._runs.rows[bad].journal  # type: ignore[attr-defined]
        journal.append(Entry(2, 0, event.RUN_RETRYING, None, None, "{}"))
        async with lives.working():
            assert (await lives.settled(good)).life.status == "succeeded"
            assert (await lives.settled(bad)).life.shown == "diverged"
        assert "cannot be read" in (await lives.hold(bad))["message"]

    async def test_deps_that_fail_hold_the_run_too(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        run = await lives.submit(value="a")

        def deps(agent: str) -> Any:
            raise LookupError("no deps")

        worker = lives.make_worker()
        worker._executor._deps = deps
        await worker.start()
        assert (await lives.settled(run)).life.shown == "diverged"
        await worker.stop()

    async def test_a_start_that_fails_leaves_nothing_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lives = Lives(Gate().app)

        async def away(*args: Any, **options: Any) -> None:
            raise StoreUnavailable("away")

        monkeypatch.setattr(lives.store, "open_worker", away)
        worker = lives.make_worker()
        mine, threads = asyncio.all_tasks(), threading.active_count()
        with pytest.raises(StoreUnavailable):
            await worker.start()
        await worker.stop()
        assert (asyncio.all_tasks(), threading.active_count()) == (mine, threads)


class TestKill:
    async def test_a_killed_worker_says_nothing_and_its_runs_are_taken_at_once(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        run = await lives.submit(value="a")
        worker = lives.make_worker()
        await worker.start()
        await gate.filled(1)
        before = await lives.journal(run)
        await worker.kill()
        assert await lives.journal(run) == before
        gate.opened.set()
        await lives.live(run)
        kinds = [entry.kind for entry in await lives.journal(run)]
        assert kinds[2:] == [event.RUN_LOST, event.RUN_STARTED, event.RUN_SUCCEEDED]

    async def test_a_run_that_kills_its_worker_three_times_without_progress_is_dead(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(double, 1)

        lives = Lives(app)
        run = await lives.run(crashes=tuple(Crash("step.before_function") for _ in range(3)))
        life = (await lives.record(run)).life
        assert (life.status, life.dead, life.reason) == ("failed", 1, "run.lost")

    async def test_hints_are_given_when_a_run_is_handed_back(self) -> None:
        gate = Gate()
        lives = Lives(gate.app)
        run = await lives.submit(value="a")
        worker = lives.make_worker()
        await worker.start()
        await gate.filled(1)
        async with lives.working():
            with lives.store.notifier.listen(QUEUE) as hints:
                await worker.stop(drain=0)
                assert await hints.wait(PATIENCE)
            gate.opened.set()
            await lives.settled(run)
