"""What is in doubt is settled by the step's declared policy, and by nothing else (`in_doubt`)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import Conflict, NotExecuted, StepFailed
from stepwell.domain.retry import Retry
from stepwell.engine import resumption
from stepwell.ports.context import Context, StepContext
from tests.unit.engine.lives import Crash, Lives
from tests.unit.engine.samples import effect, executed

AFTER_EFFECT = "step.after_function"
BEFORE_EFFECT = "step.before_function"

sold: dict[str, int] = {}


@pytest.fixture(autouse=True)
def empty_shop() -> None:
    sold.clear()


async def sell(what: str, price: int) -> int:
    effect(f"sell {what}")
    sold[what] = price
    return price


async def find_sale(what: str, price: int) -> int | None:
    effect(f"find {what}")
    return sold.get(what)


async def find_sale_or_say(what: str, price: int) -> int:
    effect(f"find {what}")
    if what not in sold:
        raise NotExecuted
    return sold[what]


def find_in_thread(what: str, price: int) -> int | None:
    return sold.get(what)


class TestRerun:
    async def test_a_step_in_doubt_runs_again_by_default(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell, "lamp", 10)

        lives = Lives(app)
        run = await lives.run(crashes=(Crash(AFTER_EFFECT),))
        assert await lives.output(run) == 10
        assert executed == {"sell lamp": 2}
        assert await lives.journal(run, event.STEP_INTENDED) == []


class TestFunction:
    def agent(self, finder: Any, **options: Any) -> tuple[Lives, Callable[..., Any]]:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell, "lamp", 10, in_doubt=finder, **options)

        lives = Lives(app)
        return lives, lives.run

    @pytest.mark.parametrize("finder", [find_sale, find_sale_or_say, find_in_thread])
    async def test_an_effect_that_happened_is_found_and_not_repeated(self, finder: Any) -> None:
        lives, start = self.agent(finder)
        run = await start(crashes=(Crash(AFTER_EFFECT),))
        assert await lives.output(run) == 10
        assert executed["sell lamp"] == 1

    @pytest.mark.parametrize("finder", [find_sale, find_sale_or_say, find_in_thread])
    async def test_an_effect_that_did_not_happen_is_made(self, finder: Any) -> None:
        lives, start = self.agent(finder)
        run = await start(crashes=(Crash(BEFORE_EFFECT),))
        assert await lives.output(run) == 10
        assert executed["sell lamp"] == 1

    async def test_nothing_is_asked_where_there_is_no_doubt(self) -> None:
        lives, start = self.agent(find_sale)
        run = await start()
        assert await lives.output(run) == 10
        assert executed == {"sell lamp": 1}
        assert [entry.kind for entry in await lives.journal(run)][2:4] == [event.STEP_INTENDED, event.STEP_COMPLETED]

    @pytest.mark.parametrize("point", ["step.after_intent", "step.after_settlement"])
    async def test_a_crash_beside_the_settlement_changes_nothing(self, point: str) -> None:
        lives, start = self.agent(find_sale)
        run = await start(crashes=(Crash(AFTER_EFFECT), Crash(point)))
        assert await lives.output(run) == 10
        assert executed["sell lamp"] == 1

    async def test_an_error_is_a_doubt_too(self) -> None:
        app = App("test")

        async def sell_and_break(what: str, price: int) -> int:
            await sell(what, price)
            raise OSError("the answer got lost")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell_and_break, "lamp", 10, in_doubt=find_sale)

        lives = Lives(app)
        assert await lives.output(await lives.run()) == 10
        assert executed == {"sell lamp": 1, "find lamp": 1}

    async def test_a_timeout_is_a_doubt_too(self) -> None:
        app = App("test")

        async def sell_and_hang(what: str, price: int) -> int:
            await sell(what, price)
            await asyncio.get_running_loop().create_future()
            return price

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell_and_hang, "lamp", 10, in_doubt=find_sale, timeout=0.01)

        lives = Lives(app)
        assert await lives.output(await lives.run()) == 10

    async def test_an_error_without_an_effect_follows_the_retry_policy(self) -> None:
        app = App("test")

        async def refuse_first(what: str, price: int) -> int:
            if effect("refuse") < 3:
                raise OSError("refused")
            return await sell(what, price)

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(refuse_first, "lamp", 10, in_doubt=find_sale, retry=Retry(3, first_delay=0))

        lives = Lives(app)
        run = await lives.run()
        assert await lives.output(run) == 10
        assert executed == {"refuse": 3, "find lamp": 2, "sell lamp": 1}
        kinds = [entry.kind.removeprefix("step.") for entry in await lives.journal(run) if entry.step]
        assert kinds == ["intended", "failed", "intended", "failed", "intended", "completed"]

    async def test_not_executed_from_the_step_itself_leaves_no_doubt(self) -> None:
        app = App("test")

        async def refuse(what: str, price: int) -> int:
            effect("refuse")
            raise NotExecuted("sold out")

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.step(refuse, "lamp", 10, in_doubt=find_sale)
            except StepFailed as error:
                return error.error_type
            return "sold"

        lives = Lives(app)
        assert await lives.output(await lives.run()) == "NotExecuted"
        assert executed == {"refuse": 1}

    async def test_what_was_found_is_data_of_the_steps_type(self) -> None:
        async def find_text(what: str, price: int) -> Any:
            return "ten"

        lives, start = self.agent(find_text)
        hold = await lives.hold(await start(crashes=(Crash(AFTER_EFFECT),)))
        assert hold["why"] == "in_doubt"
        assert "InvalidValue" in hold["message"]

    @pytest.mark.parametrize("error", [OSError("unreachable"), SystemExit(1), asyncio.CancelledError()])
    async def test_a_finder_that_fails_leaves_the_doubt_to_a_person(self, error: BaseException) -> None:
        async def break_down(what: str, price: int) -> int | None:
            raise error

        lives, start = self.agent(break_down)
        hold = await lives.hold(await start(crashes=(Crash(AFTER_EFFECT),)))
        assert hold["why"] == "in_doubt"
        assert type(error).__name__ in hold["message"]
        assert executed == {"sell lamp": 1}

    async def test_a_finder_may_ask_for_the_step_context(self) -> None:
        keys: list[str] = []

        async def sell_with_key(step: StepContext, what: str, price: int) -> int:
            keys.append(step.idempotency_key)
            return await sell(what, price)

        async def find_by_key(step: StepContext, what: str, price: int) -> int | None:
            keys.append(step.idempotency_key)
            return sold.get(what)

        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell_with_key, "lamp", 10, in_doubt=find_by_key)

        lives = Lives(app)
        run = await lives.run(crashes=(Crash(AFTER_EFFECT),))
        assert await lives.output(run) == 10
        assert len(keys) == 2
        assert len(set(keys)) == 1

    async def test_none_is_a_result_where_the_step_may_return_it(self) -> None:
        app = App("test")

        async def note(text: str) -> None:
            effect("note")

        async def find_note(text: str) -> None:
            effect("find")
            if executed["note"] == 0:
                raise NotExecuted

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(note, "hello", in_doubt=find_note)

        lives = Lives(app)
        run = await lives.run(crashes=(Crash(BEFORE_EFFECT), Crash(AFTER_EFFECT)))
        assert await lives.output(run) is None
        assert executed == {"note": 1, "find": 2}

    async def test_without_a_return_annotation_found_and_nothing_are_one(self) -> None:
        app = App("test")

        def plain(x):  # type: ignore[no-untyped-def]
            return x

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(plain, 1, in_doubt=lambda x: x)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "definition.in_doubt"

    async def test_a_doubt_that_the_agent_makes_by_cancelling_is_settled_at_once(self) -> None:
        app = App("test")

        async def sell_and_hang(what: str, price: int) -> int:
            await sell(what, price)
            await asyncio.get_running_loop().create_future()
            return price

        @app.agent
        async def agent(ctx: Context) -> int:
            async with asyncio.timeout(0.01):
                return await ctx.step(sell_and_hang, "lamp", 10, in_doubt=find_sale)

        lives = Lives(app)
        assert await lives.output(await lives.run()) == 10
        assert executed == {"sell lamp": 1, "find lamp": 1}


class TestFail:
    def lives(self, fn: Any = sell, **options: Any) -> Lives:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int | str:
            try:
                price: int = await ctx.step(fn, "lamp", 10, in_doubt="fail", **options)
            except StepFailed as error:
                return error.code
            return price

        return Lives(app)

    async def in_doubt(self, lives: Lives) -> str:
        run = await lives.run(crashes=(Crash(AFTER_EFFECT),))
        assert (await lives.record(run)).life.shown == "in_doubt"
        return run

    async def resume(self, lives: Lives, run: str, verdict: Any, result: Any = None) -> None:
        record = await lives.record(run)
        await resumption.resume(lives.store, lives.clock, record, by="ada", verdict=verdict, result=result)
        await lives.live(run)

    async def test_the_run_is_held_and_the_hold_says_what_is_in_doubt(self) -> None:
        lives = self.lives()
        hold = await lives.hold(await self.in_doubt(lives))
        assert hold["why"] == "in_doubt"
        assert (hold["step"], hold["name"]) == ("0/1", "sell")
        assert hold["message"] == "the process stopped during the step"
        assert executed == {"sell lamp": 1}

    async def test_done_records_what_the_person_says(self) -> None:
        lives = self.lives()
        run = await self.in_doubt(lives)
        await self.resume(lives, run, "done", 11)
        assert await lives.output(run) == 11
        assert executed == {"sell lamp": 1}

    async def test_rerun_runs_it_again(self) -> None:
        lives = self.lives()
        run = await self.in_doubt(lives)
        await self.resume(lives, run, "rerun")
        assert await lives.output(run) == 10
        assert executed == {"sell lamp": 2}

    async def test_a_rerun_may_end_in_doubt_again(self) -> None:
        lives = self.lives()
        run = await self.in_doubt(lives)
        record = await lives.record(run)
        await resumption.resume(lives.store, lives.clock, record, by="ada", verdict="rerun")
        await lives.live(run, crash=Crash(AFTER_EFFECT))
        await lives.live(run)
        assert (await lives.record(run)).life.shown == "in_doubt"
        await self.resume(lives, run, "done", 12)
        assert await lives.output(run) == 12

    async def test_fail_fails_the_step(self) -> None:
        lives = self.lives()
        run = await self.in_doubt(lives)
        await self.resume(lives, run, "fail")
        assert await lives.output(run) == "step.settled_as_failed"
        assert executed == {"sell lamp": 1}

    async def test_a_step_that_a_person_failed_is_not_tried_again_by_the_agents_retry(self) -> None:
        app = App("test")

        @app.agent(retry=Retry(5, first_delay=0))
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell, "lamp", 10, in_doubt="fail")

        lives = Lives(app)
        run = await self.in_doubt(lives)
        await self.resume(lives, run, "fail")
        assert (await lives.error(run))["code"] == "step.settled_as_failed"
        assert executed == {"sell lamp": 1}

    async def test_an_error_is_in_doubt_in_the_first_run_already(self) -> None:
        async def break_down(what: str, price: int) -> int:
            effect("break down")
            raise OSError("lost")

        lives = self.lives(break_down)
        run = await lives.run()
        assert (await lives.hold(run))["message"] == "the step raised OSError: lost"

    async def test_a_timeout_is_in_doubt_and_retry_does_not_help(self) -> None:
        async def hang(what: str, price: int) -> int:
            effect("hang")
            await asyncio.get_running_loop().create_future()
            return price

        lives = self.lives(hang, timeout=0.01, retry=Retry(3, first_delay=0))
        run = await lives.run()
        assert (await lives.hold(run))["why"] == "in_doubt"
        assert executed == {"hang": 1}

    async def test_a_result_that_is_not_data_is_in_doubt(self) -> None:
        async def odd(what: str, price: int) -> int:
            effect("odd")
            return "ten"  # type: ignore[return-value]

        lives = self.lives(odd)
        run = await lives.run()
        hold = await lives.hold(run)
        assert hold["why"] == "in_doubt"
        assert "InvalidValue" in hold["message"]

    async def test_not_executed_leaves_no_doubt_and_may_be_retried(self) -> None:
        async def refuse_once(what: str, price: int) -> int:
            if effect("refuse") == 1:
                raise NotExecuted
            return price

        lives = self.lives(refuse_once, retry=Retry(2, first_delay=0))
        assert await lives.output(await lives.run()) == 10

    async def test_a_verdict_that_fits_no_step_type_keeps_the_run(self) -> None:
        lives = self.lives()
        run = await self.in_doubt(lives)
        await self.resume(lives, run, "done", {"price": 10})
        hold = await lives.hold(run)
        assert hold["why"] == "diverged"
        assert hold["step"] == "0/1"
        assert "another shape" in hold["message"]

    async def test_a_step_with_a_key_can_be_in_doubt(self) -> None:
        lives = self.lives(key="lamp:1")
        run = await self.in_doubt(lives)
        assert (await lives.hold(run))["step"] == "sell:lamp:1"
        await self.resume(lives, run, "done", 9)
        assert await lives.output(run) == 9

    async def test_cancelling_it_from_the_agent_is_in_doubt_at_once(self) -> None:
        async def hang(what: str, price: int) -> int:
            effect("hang")
            await asyncio.get_running_loop().create_future()
            return price

        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            async with asyncio.timeout(0.01):
                return await ctx.step(hang, "lamp", 10, in_doubt="fail")

        lives = Lives(app)
        run = await lives.run()
        assert (await lives.hold(run))["message"] == "the agent cancelled the step"

    async def test_siblings_of_a_step_in_doubt_come_to_their_end_first(self) -> None:
        app = App("test")
        begun = asyncio.Event()

        async def break_down(what: str, price: int) -> int:
            await begun.wait()
            raise OSError("lost")

        async def slow() -> str:
            begun.set()
            for _ in range(20):
                await asyncio.sleep(0)
            effect("slow")
            return "slow"

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            a, b = await ctx.gather(ctx.step(break_down, "lamp", 10, in_doubt="fail"), ctx.step(slow))
            return [a, b]

        lives = Lives(app)
        run = await lives.run()
        assert (await lives.hold(run))["why"] == "in_doubt"
        assert [entry.step for entry in await lives.journal(run, event.STEP_COMPLETED)] == ["0.1.1/1"]
        await self.resume(lives, run, "done", 5)
        assert await lives.output(run) == [5, "slow"]
        assert executed == {"slow": 1}


class TestVerdicts:
    async def test_a_run_that_is_not_in_doubt_takes_no_verdict(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell, "lamp", 10, in_doubt="fail")

        lives = Lives(app)
        run = await lives.run(crashes=(Crash(AFTER_EFFECT),))
        held = await lives.record(run)
        with pytest.raises(Conflict, match="needs a verdict"):
            await resumption.resume(lives.store, lives.clock, held, by="ada", verdict=None)
        await resumption.resume(lives.store, lives.clock, held, by="ada", verdict="rerun")
        with pytest.raises(Conflict):
            await resumption.resume(lives.store, lives.clock, held, by="bob", verdict="rerun")
        assert [fact["by"] for fact in await lives.facts(run, event.RUN_RELEASED)] == ["ada"]

    async def test_a_verdict_that_is_none_is_refused_and_nothing_changes(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell, "lamp", 10, in_doubt="fail")

        lives = Lives(app)
        run = await lives.run(crashes=(Crash(AFTER_EFFECT),))
        held = await lives.record(run)
        verdict: Any = "Done"
        with pytest.raises(ValueError, match="'Done' is none of"):
            await resumption.resume(lives.store, lives.clock, held, by="ada", verdict=verdict, result=1)
        assert await lives.record(run) == held

    @pytest.mark.parametrize("verdict", ["rerun", "fail"])
    async def test_a_result_belongs_to_the_verdict_done_alone(self, verdict: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell, "lamp", 10, in_doubt="fail")

        lives = Lives(app)
        run = await lives.run(crashes=(Crash(AFTER_EFFECT),))
        held = await lives.record(run)
        with pytest.raises(ValueError, match="not done"):
            await resumption.resume(lives.store, lives.clock, held, by="ada", verdict=verdict, result=1)
        assert await lives.record(run) == held

    async def test_a_result_that_is_not_data_is_refused_and_nothing_changes(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell, "lamp", 10, in_doubt="fail")

        lives = Lives(app)
        run = await lives.run(crashes=(Crash(AFTER_EFFECT),))
        held = await lives.record(run)
        for result in (object(), float("nan"), "\ud800"):
            with pytest.raises(ValueError, match=r"result"):
                await resumption.resume(lives.store, lives.clock, held, by="ada", verdict="done", result=result)
        assert await lives.record(run) == held


class TestDefinition:
    @pytest.mark.parametrize("in_doubt", ["Ask", "again", None, 1])
    async def test_only_what_exists_can_be_declared(self, in_doubt: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            return await ctx.step(sell, "lamp", 10, in_doubt=in_doubt)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "definition.in_doubt"
        assert executed == {}
