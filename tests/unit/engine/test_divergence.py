"""A changed program is held before it does anything it should not, and goes on under the old or a corrected one."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import StepFailed
from stepwell.domain.retry import Retry
from stepwell.engine import resumption
from stepwell.ports.context import Context
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives
from tests.unit.engine.samples import add, double, effect, executed, fail, fail_first

Body = Callable[[Context], Awaitable[Any]]


def program(body: Body, **options: Any) -> App[Any]:
    """An app whose one agent is this program."""
    app = App("test")

    @app.agent(name="agent", **options)
    async def agent(ctx: Context) -> Any:
        return await body(ctx)

    return app


async def resume(lives: Lives, run: str) -> None:
    await resumption.resume(lives.store, lives.clock, await lives.record(run), by="ada", verdict=None)


async def old(ctx: Context) -> list[Any]:
    first = await ctx.step(double, 1)
    both = await ctx.gather(ctx.step(double, 2), _two_steps(ctx))
    await ctx.emit("half", {"n": 1})
    mapped = await ctx.map(double, [5, 6, 7])
    now = ctx.now()
    await ctx.artifact("a.txt", "a")
    last = await ctx.step(add, first, 1, name="last")
    return [first, *both, *mapped, last, now.year > 2000]


async def _two_steps(ctx: Context) -> int:
    return await ctx.step(add, 3, 3) + await ctx.step(add, 4, 4)


def replaced(change: dict[int, Body | None], *, first: Body | None = None) -> Body:
    """The old program with some of its seven calls replaced or left out, or one more in front."""
    calls: list[Body | None] = [
        lambda ctx: ctx.step(double, 1),
        lambda ctx: ctx.gather(ctx.step(double, 2), _two_steps(ctx)),
        lambda ctx: ctx.emit("half", {"n": 1}),
        lambda ctx: ctx.map(double, [5, 6, 7]),
        _now,
        lambda ctx: ctx.artifact("a.txt", "a"),
        lambda ctx: ctx.step(add, 2, 1, name="last"),
    ]
    for index, call in change.items():
        calls[index] = call

    async def body(ctx: Context) -> None:
        for call in [first, *calls]:
            if call is not None:
                await call(ctx)

    return body


async def _now(ctx: Context) -> None:
    ctx.now()


def triple(n: int) -> int:
    effect(f"triple {n}")
    return 3 * n


class Other:
    @staticmethod
    def double(n: int) -> int:
        effect(f"other double {n}")
        return 2 * n


CHANGES: dict[str, tuple[Body, str]] = {
    "nothing is left": (
        replaced(dict.fromkeys(range(7))),
        "the journal has step double, the program asks for nothing more",
    ),
    "a step is renamed": (
        replaced({0: lambda ctx: ctx.step(triple, 1)}),
        "at 0/1 the journal has step double, the program asks for step triple",
    ),
    "a step is of another function": (replaced({0: lambda ctx: ctx.step(Other.double, 1)}), "of function Other.double"),
    "a step has other arguments": (replaced({0: lambda ctx: ctx.step(double, 9)}), "step double with other arguments"),
    "a step is removed": (
        replaced({0: None}),
        "at 0/1 the journal has step double, the program asks for gather (2 branches)",
    ),
    "a step is added in front": (
        replaced({}, first=lambda ctx: ctx.step(triple, 0)),
        "at 0/1 the journal has step double, the program asks for step triple",
    ),
    "an equal step is added in front": (
        replaced({}, first=lambda ctx: ctx.step(double, 1)),
        "at 0/2 the journal has gather or map, the program asks for step double",
    ),
    "two calls change places": (
        replaced({0: lambda ctx: ctx.emit("half", {"n": 1}), 2: lambda ctx: ctx.step(double, 1)}),
        "the journal has step double, the program asks for emit half",
    ),
    "a gather is a step": (
        replaced({1: lambda ctx: ctx.step(double, 2)}),
        "at 0/2 the journal has gather or map, the program asks for step double",
    ),
    "a step is a gather": (
        replaced({0: lambda ctx: ctx.gather(ctx.step(double, 1))}),
        "at 0/1 the journal has step double, the program asks for gather (1 branch)",
    ),
    "a gather has fewer branches": (
        replaced({1: lambda ctx: ctx.gather(ctx.step(double, 2))}),
        "at 0/2 the journal has gather or map (2 branches), the program asks for gather (1 branch)",
    ),
    "a gather has more branches": (
        replaced({1: lambda ctx: ctx.gather(ctx.step(double, 2), _two_steps(ctx), ctx.step(triple, 1))}),
        "at 0.2.2/1 the journal has nothing, and goes on at 0/7, the program asks for step triple",
    ),
    "branches change places": (
        replaced({1: lambda ctx: ctx.gather(_two_steps(ctx), ctx.step(double, 2))}),
        "at 0.2.0/1 the journal has step double, the program asks for step add",
    ),
    "a branch ends earlier": (
        replaced({1: lambda ctx: ctx.gather(ctx.step(double, 2), ctx.step(add, 3, 3))}),
        "at 0.2.1/2 the journal has step add, the program asks for nothing more",
    ),
    "a branch goes on longer": (
        replaced({1: lambda ctx: ctx.gather(_longer(ctx), _two_steps(ctx))}),
        "at 0.2.0/2 the journal has nothing, and goes on at 0/7, the program asks for step triple",
    ),
    "an event has another name": (
        replaced({2: lambda ctx: ctx.emit("done", {"n": 1})}),
        "at 0/3 the journal has emit half, the program asks for emit done",
    ),
    "an event has other data": (replaced({2: lambda ctx: ctx.emit("half", {"n": 2})}), "emit half with other content"),
    "a map has fewer items": (
        replaced({3: lambda ctx: ctx.map(double, [5, 6])}),
        "at 0/4 the journal has gather or map (3 branches), the program asks for map (2 branches)",
    ),
    "a map has other items": (
        replaced({3: lambda ctx: ctx.map(double, [5, 7, 6])}),
        "at 0.4.1/1 the journal has step double, the program asks for step double with other arguments",
    ),
    "the time is not read any more": (
        replaced({4: None}),
        "at 0/5 the journal has now, the program asks for artifact a.txt",
    ),
    "a step is where the time was": (
        replaced({4: lambda ctx: ctx.step(double, 1)}),
        "at 0/5 the journal has now, the program asks for step double",
    ),
    "an artifact has another name": (
        replaced({5: lambda ctx: ctx.artifact("b.txt", "a")}),
        "at 0/6 the journal has artifact a.txt, the program asks for artifact b.txt",
    ),
    "an artifact has other content": (
        replaced({5: lambda ctx: ctx.artifact("a.txt", "b")}),
        "artifact a.txt with other content",
    ),
    "the last step is missing": (
        replaced({6: None}),
        "at 0/7 the journal has step last, the program asks for nothing more",
    ),
    "a step has another name": (
        replaced({6: lambda ctx: ctx.step(add, 2, 1, name="final")}),
        "at 0/7 the journal has step last, the program asks for step final",
    ),
}


async def _longer(ctx: Context) -> int:
    await ctx.step(double, 2)
    return await ctx.step(triple, 5)


class TestChanges:
    @pytest.mark.parametrize(("changed", "message"), CHANGES.values(), ids=CHANGES.keys())
    async def test_a_changed_program_is_held_and_the_old_one_finishes(self, changed: Body, message: str) -> None:
        lives = Lives(program(old))
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        done = dict(executed)
        await lives.live(run, app=program(changed))
        hold = await lives.hold(run)
        assert hold["why"] == "diverged"
        assert message in hold["message"]
        assert hold["step"] in hold["message"]
        assert "triple" not in "".join(executed), "a new step was executed"
        life = (await lives.record(run)).life
        assert (life.attempt, life.errors) == (2, 0)
        await resume(lives, run)
        await lives.live(run)
        assert await lives.output(run) == [2, 4, 14, 10, 12, 14, 3, True]
        assert executed == done

    async def test_keys_where_there_were_none_are_noticed_when_the_branch_ends(self) -> None:
        lives = Lives(program(old))
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        keyed = replaced({3: lambda ctx: ctx.map(double, [5, 6, 7], key=str)})
        await lives.live(run, app=program(keyed))
        assert (
            "at 0.4.0/1 the journal has step double, the program asks for nothing" in (await lives.hold(run))["message"]
        )

    async def test_the_same_program_is_not_held(self) -> None:
        lives = Lives(program(old))
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run, app=program(replaced({})))
        assert await lives.output(run) is None
        assert set(executed.values()) == {1}

    async def test_a_renamed_function_is_settled_by_its_old_name(self) -> None:
        lives = Lives(program(old))
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        renamed = replaced({0: lambda ctx: ctx.step(Other.double, 1, name="double")})
        await lives.live(run, app=program(renamed))
        assert await lives.output(run) is None
        assert executed["other double 1"] == 0

    async def test_a_held_run_is_not_taken_up_by_anybody(self) -> None:
        lives = Lives(program(old))
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run, app=program(replaced({0: None})))
        other = await lives.submit()
        async with lives.working():
            await lives.settled(other)
        assert (await lives.record(run)).life.shown == "diverged"

    async def test_no_attempt_is_spent_however_often_it_diverges(self) -> None:
        lives = Lives(program(old, retry=Retry(2, first_delay=0)))
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        for _ in range(5):
            await lives.live(run, app=program(replaced({0: None})))
            await resume(lives, run)
        await lives.live(run)
        assert (await lives.record(run)).life.status == "succeeded"

    async def test_an_agent_cannot_catch_it(self) -> None:
        async def stubborn(ctx: Context) -> str:
            with contextlib.suppress(BaseException):
                await ctx.step(triple, 1)
            for _ in range(3):
                with contextlib.suppress(BaseException):
                    await ctx.step(double, 1)
            return "finished all the same"

        lives = Lives(program(old))
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run, app=program(stubborn))
        assert (await lives.record(run)).life.shown == "diverged"

    async def test_what_a_changed_program_noted_does_not_stay(self) -> None:
        async def before(ctx: Context) -> list[int]:
            async def waits() -> int:
                return await ctx.step(double, 2) + await ctx.step(double, 4)

            return list(await ctx.gather(ctx.step(double, 1), waits()))

        async def after(ctx: Context) -> None:
            async def reads() -> None:
                await ctx.step(double, 1)
                ctx.now()
                ctx.patched("new")

            await ctx.gather(reads(), ctx.step(double, 3))

        lives = Lives(program(before))
        run = await lives.submit()
        await lives.live(run, crash=Crash("commit.after", passing=2))
        await lives.live(run, app=program(after))
        assert (await lives.hold(run))["step"] == "0.1.1/1"
        assert await lives.facts(run, event.TIME_READ, event.PATCH_MARKED) == []
        await resume(lives, run)
        await lives.live(run)
        assert await lives.output(run) == [2, 12]

    async def test_a_step_with_a_key_has_the_same_arguments_again(self) -> None:
        async def before(ctx: Context) -> int:
            return await ctx.step(double, 1, key="a")

        async def after(ctx: Context) -> int:
            return await ctx.step(double, 2, key="a")

        lives = Lives(program(before))
        run = await lives.submit()
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run, app=program(after))
        assert (await lives.hold(run))["step"] == "double:a"
        assert executed == {"double 1": 1}


class TestPatches:
    def before(self) -> Body:
        async def body(ctx: Context) -> str:
            await ctx.step(double, 1)
            await ctx.step(double, 2)
            await ctx.step(double, 3)
            return "old"

        return body

    def after(self) -> Body:
        async def body(ctx: Context) -> str:
            await ctx.step(double, 1)
            if ctx.patched("no-two"):
                await ctx.step(triple, 2)
                await ctx.step(double, 3)
                return "new"
            await ctx.step(double, 2)
            await ctx.step(double, 3)
            return "old"

        return body

    async def test_a_new_run_takes_the_new_branch_and_stays_there(self) -> None:
        lives = Lives(program(self.after()))
        run = await lives.run(crashes=(Crash("commit.before"), Crash("commit.after"), Crash(AFTER_AGENT)))
        assert await lives.output(run) == "new"
        assert "double 2" not in executed
        assert await lives.facts(run, event.PATCH_MARKED) == [{"id": "no-two", "active": True}]

    @pytest.mark.parametrize("done", [2, 3])
    async def test_a_run_that_went_further_before_keeps_the_old_branch(self, done: int) -> None:
        lives = Lives(program(self.before()))
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record", passing=done))
        app = program(self.after())
        await lives.live(run, app=app, crash=Crash(AFTER_AGENT))
        await lives.live(run, app=app)
        assert await lives.output(run) == "old"
        assert executed == {"double 1": 1, "double 2": 1, "double 3": 1}

    async def test_a_run_that_had_not_come_so_far_takes_the_new_one(self) -> None:
        lives = Lives(program(self.before()))
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record"))
        await lives.live(run, app=program(self.after()))
        assert await lives.output(run) == "new"

    async def test_a_diverged_run_goes_on_under_a_patched_program(self) -> None:
        async def unpatched(ctx: Context) -> str:
            await ctx.step(double, 1)
            await ctx.step(triple, 2)
            return "new"

        lives = Lives(program(self.before()))
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record", passing=2))
        await lives.live(run, app=program(unpatched))
        assert (await lives.record(run)).life.shown == "diverged"
        await resume(lives, run)
        await lives.live(run, app=program(self.after()))
        assert await lives.output(run) == "old"
        assert "triple 2" not in executed

    async def test_one_mark_decides_for_every_turn_of_a_loop(self) -> None:
        def loop(new: bool) -> Body:
            async def body(ctx: Context) -> list[bool]:
                taken = []
                for n in range(3):
                    taken.append(new and ctx.patched("loop"))
                    await ctx.step(double, n)
                return taken

            return body

        lives = Lives(program(loop(False)))
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record"))
        await lives.live(run, app=program(loop(True)))
        assert await lives.output(run) == [False, False, False]

    async def test_a_branch_that_was_finished_before_keeps_the_old_one(self) -> None:
        def gather(new: bool) -> Body:
            async def body(ctx: Context) -> list[Any]:
                async def silent() -> str:
                    return "new" if new and ctx.patched("branch") else "old"

                a, b = await ctx.gather(silent(), ctx.step(double, 1))
                return [a, b, await ctx.step(double, 2)]

            return body

        lives = Lives(program(gather(False)))
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record", passing=2))
        await lives.live(run, app=program(gather(True)))
        assert await lives.output(run) == ["old", 2, 4]

    async def test_steps_with_keys_show_that_a_run_was_further(self) -> None:
        def keyed(new: bool) -> Body:
            async def body(ctx: Context) -> str:
                if new and ctx.patched("keyed"):
                    return "new"
                await ctx.step(double, 1, key="a")
                return "old"

            return body

        lives = Lives(program(keyed(False)))
        run = await lives.submit()
        await lives.live(run, crash=Crash("step.after_record"))
        await lives.live(run, app=program(keyed(True)))
        assert await lives.output(run) == "old"

    @pytest.mark.parametrize("id", ["", 5, "\ud800", None])
    async def test_an_id_is_text(self, id: Any) -> None:
        async def body(ctx: Context) -> None:
            ctx.patched(id)

        lives = Lives(program(body))
        assert (await lives.error(await lives.run()))["type"] in ("InvalidDefinition", "InvalidValue")


class TestAfterFailures:
    """The failure that ended an attempt is tried again; what the program did about it may come again or not."""

    async def check(self, body: Body, expected: Any, *, attempts: int = 5) -> tuple[Lives, str]:
        lives = Lives(program(body, retry=Retry(attempts, first_delay=0)))
        run = await lives.run()
        assert await lives.output(run) == expected
        return lives, run

    async def test_the_failure_is_tried_again_and_what_was_done_before_is_not(self) -> None:
        async def body(ctx: Context) -> str:
            await ctx.step(double, 1)
            return await ctx.step(fail_first, "a", 2)

        await self.check(body, "a done")
        assert executed == {"double 1": 1, "a": 3}

    @pytest.mark.parametrize(
        "clean_up",
        [
            lambda ctx: ctx.step(add, 1, 1),
            lambda ctx: ctx.step(add, 1, 1, key="k"),
            lambda ctx: ctx.step(add, 1, 1, in_doubt="fail"),
            lambda ctx: ctx.gather(ctx.step(add, 1, 1), ctx.step(add, 2, 2)),
            lambda ctx: ctx.map(double, [1, 2, 3], key=str),
            lambda ctx: ctx.emit("sorry"),
            lambda ctx: ctx.artifact("sorry.txt", "sorry"),
            _now,
        ],
        ids=["step", "keyed step", "step that must know", "gather", "keyed map", "emit", "artifact", "now"],
    )
    @pytest.mark.parametrize("key", [None, "key"])
    async def test_a_clean_up_is_passed_over_when_the_next_attempt_goes_another_way(
        self, clean_up: Body, key: str | None
    ) -> None:
        async def body(ctx: Context) -> list[Any]:
            try:
                first = await ctx.step(fail_first, "a", 1, key=key)
            except StepFailed:
                await clean_up(ctx)
                raise
            return [first, await ctx.step(double, 7), await ctx.gather(ctx.step(double, 8))]

        lives, run = await self.check(body, ["a done", 14, [16]])
        assert executed["double 7"] == 1
        assert (await lives.record(run)).life.attempt == 2

    async def test_a_clean_up_that_comes_again_is_not_repeated(self) -> None:
        async def body(ctx: Context) -> str:
            try:
                return await ctx.step(fail_first, "a", 3)
            except StepFailed:
                await ctx.step(double, 1)
                raise

        await self.check(body, "a done")
        assert executed == {"a": 4, "double 1": 1}

    async def test_a_clean_up_around_branches_is_passed_over_too(self) -> None:
        async def body(ctx: Context) -> list[Any]:
            try:
                both = await ctx.gather(ctx.step(double, 1), ctx.step(fail_first, "a", 1))
            except StepFailed:
                await ctx.step(double, 2)
                raise
            return [*both, await ctx.step(double, 3)]

        await self.check(body, [2, "a done", 6])
        assert executed == {"double 1": 1, "a": 2, "double 2": 1, "double 3": 1}

    async def test_all_failures_of_branches_that_ended_an_attempt_are_tried_again_together(self) -> None:
        async def body(ctx: Context) -> list[str]:
            async def one(n: int) -> str:
                return await ctx.step(fail_first, str(n), 1)

            async def two() -> str:
                return " ".join(await ctx.map(_fail_once, [10, 11]))

            return await ctx.gather(two(), one(12), one(13))

        await self.check(body, ["10 done 11 done", "12 done", "13 done"], attempts=2)
        assert set(executed.values()) == {2}

    async def test_a_failure_that_was_told_in_other_words_is_tried_again(self) -> None:
        async def body(ctx: Context) -> str:
            try:
                return await ctx.step(fail_first, "a", 1)
            except StepFailed as error:
                raise LookupError("no a") from error

        await self.check(body, "a done", attempts=2)

    async def test_failures_in_a_group_are_tried_again(self) -> None:
        async def body(ctx: Context) -> list[str]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ctx.step(fail_first, name, 1, key=name)) for name in "ab"]
            return [task.result() for task in tasks]

        await self.check(body, ["a done", "b done"], attempts=3)

    async def test_a_failure_that_was_caught_stays_one(self) -> None:
        async def body(ctx: Context) -> str:
            with contextlib.suppress(StepFailed):
                await ctx.step(fail, "for good")
            return await ctx.step(fail_first, "a", 1)

        await self.check(body, "a done")
        assert executed == {"fail for good": 1, "a": 2}

    async def test_a_caught_failure_of_a_branch_stays_one(self) -> None:
        async def body(ctx: Context) -> str:
            with contextlib.suppress(StepFailed):
                await ctx.gather(ctx.step(fail, "x"), ctx.step(fail, "y"))
            return await ctx.step(fail_first, "a", 1)

        await self.check(body, "a done")
        assert executed == {"fail x": 1, "fail y": 1, "a": 2}

    async def test_crashes_in_between_change_nothing(self) -> None:
        async def body(ctx: Context) -> list[Any]:
            try:
                first = await ctx.step(fail_first, "a", 2)
            except StepFailed:
                await ctx.step(double, executed["a"])
                raise
            return [first, await ctx.step(double, 7)]

        for passing in range(1, 12):
            executed.clear()
            lives = Lives(program(body, retry=Retry(9, first_delay=0)))
            run = await lives.run(crashes=(Crash("commit.after", passing=passing),))
            assert await lives.output(run) == ["a done", 14]
            assert executed["double 7"] == 1


async def _fail_once(n: int) -> str:
    return await fail_first(str(n), 1)
