"""`ctx.ask`: a question to a person, asked once, and its answer, the same on every replay."""

import asyncio
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import AlreadyAnswered, AskTimeout, InvalidInput, Misuse
from stepwell.domain.outcome import Payload
from stepwell.domain.retry import Retry
from stepwell.engine import resumption
from stepwell.ports.context import Context
from stepwell.testing.clock import ManualClock
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives
from tests.unit.engine.samples import double, effect, executed, turns


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int


def asker(type: Any = bool, **options: Any) -> Lives:
    """An agent that asks one question, and shows what it was given."""
    app = App("test")

    @app.agent
    async def agent(ctx: Context) -> str:
        return repr(await ctx.ask("Well?", type, **options))

    return Lives(app)


async def opening(lives: Lives, run: str) -> dict[str, Any]:
    (facts,) = await lives.facts(run, event.WAIT_OPENED)
    return facts


class TestTypes:
    @pytest.mark.parametrize(
        ("type", "answer", "expected"),
        [
            (bool, True, "True"),
            (int, 3, "3"),
            (str, "yes", "'yes'"),
            (list[int], [1, 2], "[1, 2]"),
            (Colour, "blue", "<Colour.BLUE: 'blue'>"),
            (Address, {"street": "Elm", "number": 3}, "Address(street='Elm', number=3)"),
            (Any, {"a": None}, "{'a': None}"),
            (str | None, None, "None"),
        ],
    )
    async def test_an_answer_is_of_the_type_that_was_asked_for(self, type: Any, answer: Any, expected: str) -> None:
        lives = asker(type)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.answer(run, answer)
            await lives.settled(run)
        assert await lives.output(run) == expected

    async def test_its_schema_tells_a_form_what_to_show(self) -> None:
        lives = asker(Colour)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        assert (await opening(lives, run))["schema"]["enum"] == ["red", "blue"]

    async def test_an_answer_that_does_not_fit_raises_in_the_agent(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            try:
                await ctx.ask("Well?", int)
            except InvalidInput as error:
                return error.code
            return ""

        lives = Lives(app)
        run = await lives.submit()
        async with lives.working():
            await lives.answer(run, "a lot")
            await lives.settled(run)
        assert await lives.output(run) == "answer.invalid"


class TestWhatIsShown:
    async def test_the_question_its_details_and_who_is_asked_stand_in_the_event(self) -> None:
        lives = asker(bool, details={"order": 7, "items": ["lamp", None]}, assignee="ada")
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        facts = await opening(lives, run)
        assert facts["name"] == "Well?"
        assert facts["assignee"] == "ada"
        assert facts["details"] == {"order": 7, "items": ["lamp", None]}
        assert facts["schema"] == {"type": "boolean"}
        assert facts["wait"].startswith("q_")
        question = await lives.question(run)
        assert (question.wait.name, question.wait.until) == ("Well?", None)

    async def test_what_was_not_given_is_not_there(self) -> None:
        lives = asker(bool)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        assert set(await opening(lives, run)) == {"wait", "type", "name", "schema", "digest"}

    async def test_a_parked_run_tells_its_questions_without_their_forms(self) -> None:
        lives = asker(bool, details={"much": "x" * 1000})
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        (told,) = await lives.facts(run, event.RUN_WAITING)
        (wait,) = told["waits"]
        assert set(wait) == {"wait", "type", "name"}

    @pytest.mark.parametrize("text", ["", None, 5])
    async def test_a_question_is_a_text(self, text: Any) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.ask(text, bool)

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "definition.text"

    @pytest.mark.parametrize("options", [{"assignee": ""}, {"assignee": 5}])
    async def test_so_is_who_is_asked(self, options: dict[str, Any]) -> None:
        lives = asker(bool, **options)
        assert (await lives.error(await lives.run()))["code"] == "definition.text"

    async def test_details_that_are_no_data_are_refused(self) -> None:
        lives = asker(bool, details=object())
        assert (await lives.error(await lives.run()))["type"] == "InvalidValue"

    async def test_a_question_of_any_size_is_refused_before_it_is_asked(self) -> None:
        lives = asker(bool, details="x" * 300_000)
        run = await lives.run()
        assert (await lives.error(run))["code"] == "value.size"
        assert await lives.journal(run, event.WAIT_OPENED) == []


class TestOnce:
    @pytest.mark.parametrize("point", ["wait.after_opening", "commit.after", "executor.after_claim"])
    async def test_a_crash_does_not_ask_again(self, point: str) -> None:
        lives = asker(bool)
        run = await lives.submit()
        await lives.live(run, crash=Crash(point))
        async with lives.working():
            await lives.answer(run, True)
            await lives.settled(run)
        assert await lives.output(run) == "True"
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1

    async def test_the_answer_is_remembered_on_every_replay(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[Any]:
            answers = [await ctx.ask(f"Question {number}?", int) for number in range(3)]
            return [*answers, await ctx.step(double, 1)]

        lives = Lives(app)
        run = await lives.submit()
        for number in range(3):
            async with lives.working():
                await lives.answer(run, number, text=f"Question {number}?")
                await lives.has(run, event.WAIT_CLOSED, number + 1)
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run)
        assert await lives.output(run) == [0, 1, 2, 2]
        assert executed == {"double 1": 1}
        assert len(await lives.journal(run, event.WAIT_CLOSED)) == 3

    async def test_an_answer_that_comes_while_nobody_executes_is_found(self) -> None:
        lives = asker(bool)
        run = await lives.submit()
        await lives.live(run, crash=Crash("wait.after_opening"))
        await lives.answer(run, False)
        await lives.live(run)
        assert await lives.output(run) == "False"
        assert await lives.journal(run, event.RUN_WAITING) == []

    async def test_the_first_answer_wins(self) -> None:
        lives = asker(int)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        question = await lives.question(run)
        await lives.answer(run, 1)
        with pytest.raises(AlreadyAnswered):
            await lives.store.answer(question.wait.id, Payload("2"), by="bob")
        await lives.live(run)
        assert await lives.output(run) == "1"

    @pytest.mark.parametrize(("type", "options"), [(bool, {"details": 1}), (bool, {"assignee": "bob"}), (int, {})])
    async def test_another_question_at_its_place_is_a_difference(self, type: Any, options: dict[str, Any]) -> None:
        lives = asker(bool)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        await lives.answer(run, True)
        await lives.live(run, app=asker(type, **options).app)
        assert (await lives.hold(run))["why"] == "diverged"
        await resumption.resume(lives.store, lives.clock, await lives.record(run), by="ada", verdict=None)
        await lives.live(run)
        assert await lives.output(run) == "True"


class TestTimeout:
    def lives(self, clock: ManualClock, *, retry: Retry | None = None, **options: Any) -> Lives:
        app = App("test")

        @app.agent(retry=retry)
        async def agent(ctx: Context) -> str:
            try:
                return str(await ctx.ask("Well?", bool, timeout=60, **options))
            except AskTimeout:
                effect("timeout")
                raise

        return Lives(app, clock=clock)

    async def test_after_it_the_default_is_given_and_the_question_is_closed(self) -> None:
        clock = ManualClock()
        lives = self.lives(clock, default=False)
        run = await lives.submit()
        async with lives.working():
            assert (await lives.parked(run)).life.available_at == clock.now() + 60_000_000
            clock.jump(60)
            lives.look()
            await lives.settled(run)
        assert await lives.output(run) == "False"
        assert await lives.questions(run) == []

    async def test_without_a_default_it_raises_live_and_on_replay_alike(self) -> None:
        clock = ManualClock()
        lives = self.lives(clock)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
        clock.jump(60)
        await lives.live(run, crash=Crash(AFTER_AGENT))
        await lives.live(run)
        assert (await lives.error(run))["code"] == "ask.timeout"
        assert executed == {"timeout": 2}

    async def test_one_that_ended_an_attempt_is_asked_anew_by_the_next(self) -> None:
        clock = ManualClock()
        lives = self.lives(clock, retry=Retry(3, first_delay=0))
        run = await lives.submit()
        async with lives.working():
            first = await lives.question(run)
            await lives.parked(run)
            clock.jump(60)
            lives.look()
            await lives.has(run, event.RUN_RETRYING)
            await lives.has(run, event.WAIT_OPENED, 2)
            second = await lives.question(run)
            await lives.answer(run, True)
            await lives.settled(run)
        assert await lives.output(run) == "True"
        assert first.wait.id != second.wait.id

    async def test_one_that_was_caught_stays_over(self) -> None:
        clock = ManualClock()
        app = App("test")

        @app.agent(retry=Retry(3, first_delay=0))
        async def agent(ctx: Context) -> str:
            try:
                first = str(await ctx.ask("First?", bool, timeout=60))
            except AskTimeout:
                first = "nobody"
            if await ctx.step(turns, f"attempt {ctx.attempt}", 0) == "attempt 1":
                raise OSError("again")
            return first

        lives = Lives(app, clock=clock)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            clock.jump(60)
            lives.look()
            await lives.settled(run)
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1


class TestKeys:
    async def test_a_question_with_a_key_may_move(self) -> None:
        def version(order: str) -> Lives:
            app = App("test")

            @app.agent
            async def agent(ctx: Context) -> str:
                found = {}
                for letter in order:
                    found[letter] = await ctx.ask(f"{letter}?", int, key=letter)
                return ", ".join(f"{letter}={found[letter]}" for letter in sorted(found))

            return Lives(app)

        lives = version("abc")
        run = await lives.submit()
        async with lives.working():
            await lives.answer(run, 1, text="a?")
            await lives.question(run, "b?")
            await lives.parked(run)
        async with lives.working(version("cba").app):
            await lives.answer(run, 2, text="b?")
            await lives.answer(run, 3, text="c?")
            await lives.settled(run)
        assert await lives.output(run) == "a=1, b=2, c=3"
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 3

    async def test_the_same_key_asks_once_and_both_are_given_the_answer(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            first = await ctx.ask("Well?", int, key="it")
            return [first, await ctx.ask("Well?", int, key="it")]

        lives = Lives(app)
        run = await lives.submit()
        async with lives.working():
            await lives.answer(run, 7)
            await lives.settled(run)
        assert await lives.output(run) == [7, 7]
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1

    @pytest.mark.parametrize("commits", [None, 1, 2, 3])
    async def test_so_it_does_in_branches_and_tasks_at_once(self, commits: int | None) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> list[int]:
            async def ask() -> int:
                return await ctx.ask("Well?", int, key="it")

            async def in_tasks() -> int:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(ask()) for _ in range(3)]
                return sum(task.result() for task in tasks)

            return await ctx.gather(ask(), ctx.ask("Well?", int, key="it"), in_tasks())

        lives = Lives(app, group_commits=commits)
        run = await lives.submit()
        async with lives.working():
            await lives.parked(run)
            await lives.answer(run, 7)
            await lives.settled(run)
        assert await lives.output(run) == [7, 7, 21]
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1

    async def test_one_key_for_two_questions_is_a_mistake(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> str:
            await ctx.ask("First?", int, key="it")
            try:
                await ctx.ask("Second?", int, key="it")
            except Misuse as error:
                return error.code
            return ""

        lives = Lives(app)
        run = await lives.submit()
        async with lives.working():
            await lives.answer(run, 1)
            await lives.settled(run)
        assert await lives.output(run) == "step.key_used_twice"

    async def test_a_question_in_a_task_that_was_cancelled_is_found_again_under_its_key(self) -> None:
        app = App("test")

        @app.agent
        async def agent(ctx: Context) -> int:
            task = asyncio.create_task(ctx.ask("Well?", int, key="it"))
            while not executed["asked"]:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return await ctx.ask("Well?", int, key="it")

        lives = Lives(app, group_commits=1)
        run = await lives.submit()
        async with lives.working():
            for _ in range(3):
                await asyncio.sleep(0)
            effect("asked")
            await lives.parked(run)
            await lives.answer(run, 7)
            await lives.settled(run)
        assert await lives.output(run) == 7
        assert len(await lives.journal(run, event.WAIT_OPENED)) == 1

    @pytest.mark.parametrize("key", ["", 5, "x" * 1001])
    async def test_what_is_no_key_is_refused(self, key: Any) -> None:
        lives = asker(bool, key=key)
        assert (await lives.error(await lives.run()))["code"] == "definition.step_key"


class TestRelease:
    @pytest.mark.parametrize(("given", "expected"), [((True,), True), ((False,), False), ((True, False), False)])
    async def test_a_run_gives_up_its_turn_when_all_it_waits_for_allows_it(
        self, given: tuple[bool, ...], expected: bool
    ) -> None:
        app = App("test")

        @app.agent(session="synchronized")
        async def agent(ctx: Context) -> None:
            await ctx.gather(*(ctx.ask(f"{n}?", bool, release=release) for n, release in enumerate(given)))

        lives = Lives(app)
        first = await lives.submit(session="one")
        second = await lives.submit(session="one")
        async with lives.working():
            await lives.parked(first)
            if expected:
                await lives.parked(second)
            for number in range(len(given)):
                await lives.answer(first, True, text=f"{number}?")
            await lives.settled(first)
            await lives.has(second, event.RUN_STARTED)
            if not expected:
                assert (await lives.journal(second))[1].at >= (await lives.journal(first))[-1].at
            await lives.parked(second)
