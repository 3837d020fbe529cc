"""`ctx.call` and `ctx.spawn`: runs that a run starts, once each, and whose ends it finds in its own journal."""

import asyncio
import contextlib
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import Fail, InvalidInput, NotFound, RunFailed, StepFailed
from stepwell.domain.retry import Retry
from stepwell.domain.run import CANCELLED, QUEUED, SUCCEEDED, WAITING, RunRecord
from stepwell.engine import children as children_module
from stepwell.ports.context import Context
from stepwell.runtime import RunResult, Runtime
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives
from tests.unit.engine.samples import add, double, effect, executed


class Order(BaseModel):
    number: int
    note: str = ""


class Receipt(BaseModel):
    order: Order
    paid: float


def family(parent: Any, **options: Any) -> Lives:
    """A parent, and children of several kinds."""
    app = App("test")
    app.agent(name="parent", **options)(parent)

    @app.agent
    async def twice_as_much(ctx: Context, number: int) -> int:
        return await ctx.step(double, number)

    @app.agent
    async def pay(ctx: Context, order: Order) -> Receipt:
        return Receipt(order=order, paid=9.5)

    @app.agent
    async def patient(ctx: Context, name: str) -> str:
        return str(await ctx.wait_for("end", str))

    @app.agent
    async def failing(ctx: Context, times: int) -> int:
        if effect("failing") <= times:
            raise Fail("not now", code="shop.closed", retryable=True)
        return times

    @app.agent
    async def echo(ctx: Context, text: str) -> str:
        return text

    @app.agent
    async def nested(ctx: Context, depth: int) -> Any:
        if depth == 0:
            return 0
        return 1 + await ctx.call("nested", depth - 1)

    return Lives(app)


async def born(lives: Lives, run: str, count: int = 1) -> list[RunRecord]:
    """The run's children, once there are so many."""
    await lives.has(run, event.CHILD_STARTED, count)
    return await lives.children(run)


class TestCall:
    async def test_it_gives_what_the_child_returned_in_the_childs_types(self) -> None:
        async def parent(ctx: Context) -> str:
            receipt = await ctx.call(lives.app.agents["pay"], Order(number=3))
            assert isinstance(receipt, Receipt)
            return repr(receipt)

        lives = family(parent)
        run = await lives.run(lives.app.agents["parent"])
        assert await lives.output(run) == "Receipt(order=Order(number=3, note=''), paid=9.5)"

    async def test_the_parent_holds_nothing_meanwhile(self) -> None:
        async def parent(ctx: Context) -> str:
            return str(await ctx.call("patient", "ada"))

        lives = family(parent)
        run = await lives.submit()
        async with lives.working(capacity=1) as worker:
            (child,) = await born(lives, run)
            await lives.parked(run)
            await lives.parked(child.id)
            await worker.idle()
            await lives.signal(child.id, "end", "done")
            await lives.settled(run)
        assert await lives.output(run) == "done"

    async def test_a_child_knows_where_it_comes_from(self) -> None:
        async def parent(ctx: Context) -> Any:
            await ctx.step(add, 1, 1)
            return await ctx.call("twice_as_much", 4)

        lives = family(parent)
        run = await lives.run()
        (child,) = await lives.children(run)
        assert (child.parent, child.root, child.depth, child.parent_step) == (run, run, 1, "0/2")
        assert child.session == (await lives.record(run)).session
        (started,) = await lives.facts(run, event.CHILD_STARTED)
        assert (started["child"], started["agent"], started["mode"]) == (child.id, "twice_as_much", "call")
        (ended,) = await lives.facts(run, event.CHILD_ENDED)
        assert (ended["child"], ended["status"], ended["output"]) == (child.id, SUCCEEDED, 8)

    @pytest.mark.parametrize("commits", [None, 7])
    @pytest.mark.parametrize("passing", range(1, 22))
    async def test_wherever_the_parent_is_lost_each_child_is_made_once(self, passing: int, commits: int | None) -> None:
        async def parent(ctx: Context) -> list[int]:
            first = await ctx.call("twice_as_much", 1)
            others = await ctx.gather(ctx.call("twice_as_much", 10), ctx.call("twice_as_much", 20, key="it"))
            spawned = await ctx.spawn("twice_as_much", 30)
            last = await ctx.step(add, first, 1)
            return [first, *others, last, (await spawned.result()).output]

        lives = family(parent)
        run = await lives.submit()
        await lives.live(run, crash=Crash(passing=passing))
        await lives.live(run)
        assert await lives.output(run) == [2, 20, 40, 3, 60]
        children = await lives.children(run)
        assert len(children) == 4
        assert {child.life.status for child in children} == {SUCCEEDED}

    async def test_a_child_that_failed_ends_its_parent(self) -> None:
        async def parent(ctx: Context) -> Any:
            return await ctx.call("failing", 9)

        lives = family(parent)
        run = await lives.run()
        error = await lives.error(run)
        assert (error["code"], error["type"], error["step"]) == ("shop.closed", "RunFailed", "0/1")

    async def test_unless_it_is_caught(self) -> None:
        async def parent(ctx: Context) -> list[Any]:
            try:
                await ctx.call("failing", 9)
            except RunFailed as error:
                caught = [error.code, error.status, error.retryable]
            return [*caught, await ctx.step(double, 1)]

        lives = family(parent)
        run = await lives.run(crashes=(Crash("step.after_record"), Crash("executor.after_outcome")))
        assert await lives.output(run) == ["shop.closed", "failed", True, 2]
        assert executed == {"failing": 1, "double 1": 1}

    async def test_a_new_attempt_makes_a_child_that_failed_anew_and_keeps_the_others(self) -> None:
        async def parent(ctx: Context) -> list[int]:
            good = await ctx.call("twice_as_much", 1)
            return [good, await ctx.call("failing", 2)]

        lives = family(parent, retry=Retry(5, first_delay=0))
        run = await lives.run()
        assert await lives.output(run) == [2, 2]
        assert executed == {"double 1": 1, "failing": 3}
        assert len(await lives.children(run)) == 4

    async def test_so_it_does_with_those_in_branches(self) -> None:
        async def parent(ctx: Context) -> list[int]:
            return list(await ctx.gather(ctx.call("failing", 2), ctx.call("twice_as_much", 1), ctx.call("failing", 2)))

        lives = family(parent, retry=Retry(5, first_delay=0))
        run = await lives.run()
        assert await lives.output(run) == [2, 2, 2]
        assert executed["double 1"] == 1
        assert executed["failing"] in (4, 5)

    async def test_what_was_caught_is_not_made_anew(self) -> None:
        async def parent(ctx: Context) -> int:
            with contextlib.suppress(RunFailed):
                await ctx.call("failing", 9)
            if effect("attempt") == 1:
                raise OSError("again")
            return executed["failing"]

        lives = family(parent, retry=Retry(5, first_delay=0))
        assert await lives.output(await lives.run()) == 1

    async def test_with_a_key_it_may_move_and_be_called_again(self) -> None:
        async def parent(ctx: Context) -> list[int]:
            one = await ctx.call("twice_as_much", 1, key="it")
            return [one, *await ctx.gather(*(ctx.call("twice_as_much", 1, key="it") for _ in range(3)))]

        lives = family(parent)
        run = await lives.run()
        assert await lives.output(run) == [2, 2, 2, 2]
        assert len(await lives.children(run)) == 1


class TestInput:
    async def test_an_input_that_does_not_fit_is_refused_before_anything_is_started(self) -> None:
        async def parent(ctx: Context) -> str:
            try:
                await ctx.call("pay", {"number": "many"})
            except InvalidInput as error:
                return error.code
            return ""

        lives = family(parent)
        run = await lives.run()
        assert (await lives.output(run)).startswith("input.")
        assert await lives.children(run) == []

    @pytest.mark.parametrize("agent", ["nobody", None, 5, object()])
    async def test_an_agent_that_nobody_knows_is_refused(self, agent: Any) -> None:
        async def parent(ctx: Context) -> str:
            try:
                await ctx.call(agent)
            except NotFound as error:
                return error.code
            return ""

        lives = family(parent)
        assert await lives.output(await lives.run()) == "agent.unknown"

    async def test_another_input_at_its_place_is_a_difference(self) -> None:
        def version(number: int) -> Lives:
            async def parent(ctx: Context) -> Any:
                return await ctx.call("twice_as_much", number)

            return family(parent)

        lives = version(1)
        run = await lives.submit()
        await lives.live(run, crash=Crash("child.after_start"))
        await lives.live(run, app=version(2).app)
        (held,) = await lives.facts(run, event.RUN_HELD)
        assert held["why"] == "diverged"
        assert len(await lives.children(run)) == 1

    async def test_large_values_go_by_reference(self) -> None:
        async def parent(ctx: Context) -> int:
            return len(await ctx.call("echo", "x" * 600_000))

        lives = family(parent)
        run = await lives.run(crashes=(Crash(AFTER_AGENT),))
        assert await lives.output(run) == 600_000
        (child,) = await lives.children(run)
        (queued,) = await lives.facts(child.id, event.RUN_QUEUED)
        (ended,) = await lives.facts(run, event.CHILD_ENDED)
        assert "input" not in queued
        assert "output" not in ended

    async def test_an_input_of_any_size_is_refused(self) -> None:
        async def parent(ctx: Context) -> None:
            await ctx.call("echo", "x" * 1_100_000)

        lives = family(parent)
        assert (await lives.error(await lives.run()))["code"] == "input.size"


class TestSession:
    async def test_a_child_is_in_its_parents_session(self) -> None:
        async def parent(ctx: Context) -> None:
            await ctx.call("twice_as_much", 1)
            await (await ctx.spawn("twice_as_much", 2)).result()

        lives = family(parent)
        run = await lives.submit(session="ada")
        await lives.live(run)
        assert [child.session for child in await lives.children(run)] == ["ada", "ada"]

    async def test_or_in_another_that_is_named(self) -> None:
        async def parent(ctx: Context) -> None:
            spawned = await ctx.spawn("twice_as_much", 2, session="two")
            await ctx.call("twice_as_much", 1, session="one")
            await spawned.result()

        lives = family(parent)
        run = await lives.submit(session="ada")
        await lives.live(run)
        assert {child.session for child in await lives.children(run)} == {"one", "two"}

    async def test_what_cannot_name_a_session_is_refused(self) -> None:
        async def parent(ctx: Context) -> None:
            await ctx.call("twice_as_much", 1, session="no way")

        lives = family(parent)
        run = await lives.run()
        assert (await lives.error(run))["code"] == "input.session"
        assert await lives.children(run) == []


class TestBounds:
    async def test_runs_are_nested_to_a_depth(self) -> None:
        async def parent(ctx: Context) -> Any:
            return await ctx.call("nested", children_module.MAX_DEPTH - 1)

        lives = family(parent)
        assert await lives.output(await lives.run()) == children_module.MAX_DEPTH - 1

    async def test_and_no_deeper(self) -> None:
        async def parent(ctx: Context) -> Any:
            return await ctx.call("nested", children_module.MAX_DEPTH)

        lives = family(parent)
        assert (await lives.error(await lives.run()))["code"] == "child.depth"

    @pytest.mark.parametrize("commits", [None, 3])
    async def test_a_run_has_so_many_live_children_and_no_more(self, commits: int | None) -> None:
        async def parent(ctx: Context) -> int:
            async def start() -> int:
                try:
                    await ctx.spawn("patient", "x")
                except StepFailed as error:
                    return int(error.code == "child.limit")
                return 0

            return sum(await ctx.gather(*(start() for _ in range(8))))

        lives = family(parent, children=5)
        if commits is not None:
            lives = Lives(lives.app, group_commits=commits)
        run = await lives.run()
        assert await lives.output(run) == 3
        assert len(await lives.children(run)) == 5

    async def test_what_has_ended_counts_no_more(self) -> None:
        async def parent(ctx: Context) -> list[int]:
            return [await ctx.call("twice_as_much", number) for number in range(5)]

        lives = family(parent, children=1)
        assert await lives.output(await lives.run()) == [0, 2, 4, 6, 8]

    @pytest.mark.parametrize("key", [None, "it"])
    async def test_a_refusal_is_remembered(self, key: str | None) -> None:
        async def parent(ctx: Context) -> list[str]:
            first = await ctx.spawn("patient", "x")
            refused = ""
            try:
                await ctx.spawn("patient", "y", key=key)
            except StepFailed as error:
                refused = error.code
            effect(refused)
            await ctx.wait_for("go")
            return [refused, (await first.result()).status]

        lives = family(parent, children=1)
        run = await lives.submit()
        async with lives.working():
            (child,) = await born(lives, run)
            await lives.parked(run)
            await lives.signal(child.id, "end", "x")
            await lives.has(run, event.CHILD_ENDED)
            await lives.signal(run, "go")
            await lives.settled(run)
        assert await lives.output(run) == ["child.limit", "succeeded"]
        assert executed["child.limit"] == 2
        assert len(await lives.children(run)) == 1

    async def test_one_that_was_caught_stays_refused_in_a_new_attempt(self) -> None:
        async def parent(ctx: Context) -> str:
            first = await ctx.spawn("patient", "x")
            try:
                await ctx.call("twice_as_much", 2)
            except StepFailed:
                await ctx.wait_for("go")
                raise OSError("again") from None
            return (await first.result()).status

        lives = family(parent, children=1, retry=Retry(2, first_delay=0))
        run = await lives.submit()
        async with lives.working():
            (child,) = await born(lives, run)
            await lives.parked(run)
            await lives.signal(child.id, "end", "x")
            await lives.signal(run, "go")
            await lives.settled(run)
        error = await lives.error(run)
        assert (error["code"], (await lives.record(run)).life.attempt) == ("agent.error", 2)


class TestSpawn:
    async def test_a_child_goes_on_beside_its_parent(self) -> None:
        async def parent(ctx: Context) -> list[Any]:
            child = await ctx.spawn("patient", "x")
            worked = await ctx.step(double, 1)
            result = await child.result()
            return [worked, result.ok, result.status, result.output, result.error, child.id == result.run_id]

        lives = family(parent)
        run = await lives.submit()
        async with lives.working():
            (child,) = await born(lives, run)
            await lives.parked(run)
            await lives.signal(child.id, "end", "done")
            await lives.settled(run)
        assert await lives.output(run) == [2, True, "succeeded", "done", None, True]

    async def test_joining_one_that_has_ended_long_ago_is_remembered_like_any_call(self) -> None:
        async def parent(ctx: Context) -> list[int]:
            child = await ctx.spawn("twice_as_much", 4)
            await ctx.wait_for("go")
            result = await child.result()
            return [result.output, await ctx.step(double, 1)]

        lives = family(parent)
        run = await lives.submit()
        async with lives.working():
            await lives.has(run, event.CHILD_ENDED)
            await lives.parked(run)
        await lives.signal(run, "go")
        await lives.live(run, crash=Crash("step.after_record"))
        await lives.live(run)
        assert await lives.output(run) == [8, 2]
        assert executed == {"double 4": 1, "double 1": 1}

    async def test_so_is_one_that_ends_at_the_same_moment(self) -> None:
        async def parent(ctx: Context) -> list[int]:
            child = await ctx.spawn("twice_as_much", 4)
            while not executed["ended"]:
                await asyncio.sleep(0)
            result = await child.result()
            return [result.output, await ctx.step(double, 1)]

        lives = family(parent)
        run = await lives.submit()
        async with lives.working():
            await lives.has(run, event.CHILD_ENDED)
            effect("ended")
            await lives.settled(run)
        assert await lives.output(run) == [8, 2]

    async def test_how_it_ended_never_raises_by_itself(self) -> None:
        async def parent(ctx: Context) -> list[Any]:
            result = await (await ctx.spawn("failing", 9)).result()
            try:
                _ = result.output
            except RunFailed as error:
                assert result.error is not None
                return [result.ok, result.status, result.error.code, error.code]
            return []

        lives = family(parent)
        assert await lives.output(await lives.run()) == [False, "failed", "shop.closed", "shop.closed"]

    async def test_a_failure_that_ended_the_attempt_is_made_anew(self) -> None:
        async def parent(ctx: Context) -> Any:
            child = await ctx.spawn("failing", 2)
            return (await child.result()).output

        lives = family(parent, retry=Retry(5, first_delay=0))
        run = await lives.run()
        assert await lives.output(run) == 2
        assert executed == {"failing": 3}

    async def test_it_may_be_joined_twice(self) -> None:
        async def parent(ctx: Context) -> list[int]:
            child = await ctx.spawn("twice_as_much", 4)
            first = await child.result()
            left, right = await ctx.gather(child.result(), child.result())
            return [first.output, left.output, right.output]

        lives = family(parent)
        run = await lives.run(crashes=(Crash(AFTER_AGENT), Crash(AFTER_AGENT)))
        assert await lives.output(run) == [8, 8, 8]

    async def test_one_that_nobody_joined_is_cancelled_with_its_parent(self) -> None:
        async def parent(ctx: Context) -> str:
            await ctx.spawn("patient", "x")
            return "done"

        lives = family(parent)
        run = await lives.run()
        (child,) = await lives.children(run)
        assert child.life.status == CANCELLED

    async def test_unless_it_is_detached(self) -> None:
        async def parent(ctx: Context) -> str:
            await ctx.spawn("patient", "x", detach=True)
            return "done"

        lives = family(parent)
        run = await lives.run()
        (child,) = await lives.children(run)
        assert child.life.status in (QUEUED, WAITING, "running")
        async with lives.working():
            await lives.signal(child.id, "end", "later")
            await lives.settled(child.id)
        assert (await lives.record(child.id)).life.status == SUCCEEDED

    @pytest.mark.parametrize("point", ["executor.after_claim", "child.after_start", "commit.after", AFTER_AGENT])
    async def test_a_child_before_a_checkpoint_lives_on_and_is_found_by_its_key(self, point: str) -> None:
        async def parent(ctx: Context) -> Any:
            state = await ctx.restore(str)
            if state is None:
                await ctx.spawn("patient", "x", key="it")
                await ctx.checkpoint("spawned")
            child = await ctx.spawn("patient", "x", key="it")
            return (await child.result()).output

        lives = family(parent)
        run = await lives.submit()
        async with lives.working():
            (child,) = await born(lives, run)
            await lives.parked(run)
        await lives.signal(child.id, "end", "done")
        await lives.live(run, crash=Crash(point))
        await lives.live(run)
        assert await lives.output(run) == "done"
        assert len(await lives.children(run)) == 1


class TestCancel:
    async def test_who_cancels_a_parent_cancels_its_children_and_theirs(self) -> None:
        async def parent(ctx: Context) -> None:
            await ctx.gather(ctx.call("patient", "x"), ctx.call("middle"))

        lives = family(parent)

        @lives.app.agent
        async def middle(ctx: Context) -> None:
            await ctx.spawn("patient", "detached", detach=True)
            await ctx.call("patient", "y")

        run = await lives.submit()
        async with lives.working() as worker:
            inner = next(child for child in await born(lives, run, 2) if child.agent == "middle")
            await born(lives, inner.id, 2)
            await lives.parked(inner.id)
            await lives.parked(run)
            await worker.idle()
            await lives.store.cancel(run, by="ada")
            assert (await lives.record(run)).life.status == CANCELLED
            for child in await lives.children(run):
                assert child.life.status == CANCELLED
            for child in await lives.children(inner.id):
                assert child.life.ended != bool(child.detached)

    async def test_a_cancelled_child_is_an_end_like_any_other(self) -> None:
        async def parent(ctx: Context) -> str:
            try:
                await ctx.call("patient", "x")
            except RunFailed as error:
                return error.status
            return ""

        lives = family(parent)
        run = await lives.submit()
        async with lives.working():
            (child,) = await born(lives, run)
            await lives.store.cancel(child.id, by="ada")
            await lives.settled(run)
        assert await lives.output(run) == CANCELLED


class TestTurns:
    """Synchronized sessions and children: whoever waits for a child must never be waited for by it."""

    async def run(self, name: str, value: object, session: str | None) -> RunResult[Any]:
        app = App("turns")

        @app.agent(session="synchronized")
        async def turn(ctx: Context, n: int) -> int:
            return n

        @app.agent(session="synchronized")
        async def elsewhere(ctx: Context, other: str) -> int:
            return await ctx.call(turn, 1, session=other)

        @app.agent
        async def middle(ctx: Context, other: str) -> int:
            return await ctx.call(turn, 2, session=other)

        @app.agent(session="synchronized")
        async def through(ctx: Context, other: str) -> int:
            return await ctx.call(middle, other)

        @app.agent(session="synchronized")
        async def detached(ctx: Context, other: str) -> str:
            return (await ctx.spawn(turn, 3, session=other, detach=True)).id

        async with Runtime(app, store="memory://") as runtime:
            run = await runtime.start(name, value, session=session)
            return await run.result(timeout=10)

    @pytest.mark.parametrize("agent", ["elsewhere", "through"])
    async def test_a_turn_in_another_session_is_not_waited_for_while_one_is_held(self, agent: str) -> None:
        result = await self.run(agent, "b", session="a")
        assert result.status == "failed"
        assert result.error is not None
        assert result.error.code == "child.session"

    @pytest.mark.parametrize(("agent", "session"), [("elsewhere", "a"), ("through", "a")])
    async def test_in_its_own_session_a_child_is_part_of_the_turn(self, agent: str, session: str) -> None:
        assert (await self.run(agent, session, session)).ok

    async def test_in_a_session_of_ones_own_nobody_else_is_kept_waiting(self) -> None:
        assert (await self.run("elsewhere", "b", session=None)).ok

    async def test_the_own_session_of_another_run_is_not_waited_for_from_ones_own(self) -> None:
        result = await self.run("elsewhere", "ses_01m7zpctabfgytrk09ra10dsz3", session=None)
        assert result.error is not None
        assert result.error.code == "child.session"

    async def test_whether_a_child_is_part_of_a_turn_is_not_guessed_from_the_agents_of_this_program(self) -> None:
        before, after = App("test"), App("test")
        inside: list[int] = []
        most = 0

        async def in_turn(ctx: Context) -> None:
            nonlocal most
            inside.append(1)
            most = max(most, len(inside))
            for _ in range(50):
                await asyncio.sleep(0)
            inside.pop()

        async def parent(ctx: Context) -> None:
            await ctx.wait_for("go")
            await ctx.call("in_turn")

        before.agent(name="parent", session="shared")(parent)
        after.agent(name="parent", session="synchronized")(parent)
        for app in (before, after):
            app.agent(name="in_turn", session="synchronized")(in_turn)
        lives = Lives(before)
        runs = [await lives.submit(before.agents["parent"], session="s") for _ in range(3)]
        async with lives.working(before):
            for run in runs:
                await lives.parked(run)
        async with lives.working(after):
            for run in runs:
                await lives.signal(run, "go")
            for run in runs:
                await lives.settled(run)
        assert [(await lives.record(run)).life.status for run in runs] == ["succeeded"] * 3
        assert most == 1

    async def test_who_holds_no_turn_may_wait_for_one(self) -> None:
        assert (await self.run("middle", "b", session="a")).output == 2

    async def test_a_detached_child_is_waited_for_by_nobody_and_may_have_its_turn_anywhere(self) -> None:
        assert (await self.run("detached", "b", session="a")).ok
