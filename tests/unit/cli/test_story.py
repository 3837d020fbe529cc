"""The story of one run and what is said about its holds, from real runs on a store in memory."""

import re
from contextlib import suppress
from typing import Any

import click

from stepwell.app import App
from stepwell.cli.holds import explain
from stepwell.cli.reading import history
from stepwell.cli.story import Story, Surroundings
from stepwell.domain.errors import Fail
from stepwell.domain.retry import Retry
from stepwell.ports.context import Context
from stepwell.runtime import Run, Runtime

app = App("stories")
tries: list[int] = []


def greet(name: str) -> str:
    return f"Hello, {name}!"


def shaky() -> str:
    tries.append(1)
    if len(tries) < 2:
        raise OSError("refused")
    return "fine"


def refuse() -> None:
    raise ValueError("no")


@app.agent
async def good(ctx: Context, name: str) -> list[str]:
    await ctx.emit("half", {"way": True})
    await ctx.artifact("notes.txt", "hello")
    return [await ctx.step(greet, name), await ctx.step(shaky, retry=Retry(3, first_delay=0))]


@app.agent(retry=Retry(2, first_delay=0))
async def bad(ctx: Context) -> None:
    await ctx.step(refuse)


@app.agent
async def deliberate(ctx: Context) -> None:
    raise Fail("closed on Sundays", code="shop.closed")


@app.agent
async def doubtful(ctx: Context) -> None:
    await ctx.step(refuse, in_doubt="fail")


async def story_of(agent: Any, *words: Any) -> tuple[Story, Run[Any]]:
    tries.clear()
    async with Runtime(app, store="memory://") as runtime:
        run = await runtime.start(agent, *words)
        async for told in run.events():
            if told.kind == "run.held":
                break
        now = await run.refresh()
        return Story(now, await history(now)), now


def text(story: Story) -> str:
    return "\n".join(click.unstyle(line).rstrip() for line in story.lines())


async def test_a_good_run_tells_its_steps_artifacts_and_output() -> None:
    story, run = await story_of(good, "Ada")
    told = text(story)
    assert 'input    "Ada"' in told
    assert '  • half      {"way": true}' in told
    assert "  ✓ greet " in told
    assert "  ⟳ shaky     OSError: refused" in told
    assert "  ✓ shaky " in told
    assert f"stepwell runs artifact {run.id[-6:]} notes.txt" in told
    assert told.endswith('output\n  ["Hello, Ada!", "fine"]')


async def test_a_bad_run_tells_every_attempt_and_the_frames_of_agent_and_step() -> None:
    told = text((await story_of(bad))[0])
    assert "status   failed (step.error) (dead)" in told
    assert "attempt  2" in told
    assert told.count("  ✗ refuse    ValueError: no") == 2
    assert "  ✗ attempt 1 StepFailed: step refuse failed: ValueError: no" in told
    assert "error step.error\n  step refuse failed: ValueError: no\n" in told
    assert "await ctx.step(refuse)" in told
    assert 'raise ValueError("no")' in told


async def test_a_deliberate_failure_keeps_its_code_and_hides_its_type() -> None:
    assert "error shop.closed\n  closed on Sundays\n" in text((await story_of(deliberate))[0])


async def test_a_run_in_doubt_says_what_to_type() -> None:
    story, run = await story_of(doubtful)
    told = text(story)
    assert "status   in_doubt" in told
    assert f"held[in_doubt]: run …{run.id[-6:]} of doubtful is set aside" in told
    assert "the step raised ValueError: no" in told
    assert f"stepwell runs resume {run.id[-6:]} --as done RESULT" in told


async def test_the_story_as_json_has_the_same_facts() -> None:
    record = (await story_of(good, "Ada"))[0].record()
    assert record["input"] == "Ada"
    assert record["output"] == ["Hello, Ada!", "fine"]
    assert [(step["name"], step["status"]) for step in record["steps"]] == [
        ("greet", "done"),
        ("shaky", "retrying"),
        ("shaky", "done"),
    ]
    assert [kept["name"] for kept in record["artifacts"]] == ["notes.txt"]
    assert (record["error"], record["hold"]) == (None, None)
    held = (await story_of(doubtful))[0].record()
    assert held["hold"]["why"] == "in_doubt"


async def test_a_settled_step_says_that_a_person_did_it() -> None:
    async with Runtime(app, store="memory://") as runtime:
        run = await runtime.start(doubtful)
        async for told in run.events():
            if told.kind == "run.held":
                break
        await run.resume(verdict="done", by="ada")
        await run.result(timeout=10)
        now = await run.refresh()
        assert "  ✓ refuse    settled by a person" in text(Story(now, await history(now)))
        assert "  • released  by ada" in text(Story(now, await history(now)))


async def test_history_ends_with_what_is_known_and_does_not_wait() -> None:
    async with Runtime(app, store="memory://", worker=False) as runtime:
        run = await runtime.start(good, "Ada")
        assert [told.kind for told in await history(run)] == ["run.queued"]
        assert await history(run, after=1) == []


def held(why: str, **facts: str) -> str:
    lines = explain("run_0123456789abcdefghjkmnpqrs", "hello", {"why": why, **facts}, "stepwell run x.py --continue")
    return "\n".join(click.unstyle(line) for line in lines)


def test_a_diverged_run_says_where_and_how_to_go_on() -> None:
    told = held("diverged", message="at 0/1 the journal has step a, the program asks for step b")
    assert "at 0/1 the journal has step a, the program asks for step b" in told
    assert "ctx.patched" in told
    assert told.endswith("    stepwell run x.py --continue")


def test_a_paused_run_says_who_and_how_to_go_on() -> None:
    told = held("paused", by="ada")
    assert "by ada" in told
    assert "    stepwell runs resume mnpqrs" in told


def test_what_to_type_names_the_store_that_was_named() -> None:
    lines = explain("run_0123456789abcdefghjkmnpqrs", "hello", {"why": "in_doubt"}, "go on", "sqlite:///x.db")
    resuming = [line for line in lines if "runs resume" in line]
    assert len(resuming) == 3
    assert all("--store sqlite:///x.db" in line for line in resuming)


def test_every_hold_fits_on_a_terminal() -> None:
    for why in ("diverged", "in_doubt", "paused"):
        assert [line for line in held(why).splitlines() if len(line) > 80] == []


# ---------------------------------------------------------------- waits, children, retries


@app.agent
async def patient(ctx: Context) -> str:
    sure = await ctx.ask("Sure?", bool, assignee="ada")
    got: Any = await ctx.wait_for("go")
    with suppress(TimeoutError):
        await ctx.wait_for("never", timeout=0.01)
    return f"{sure} {got}"


@app.agent
async def family(ctx: Context, count: int) -> None:
    for _ in range(count):
        await ctx.spawn(patient)
    await ctx.wait_for("never")


async def around(runtime: Runtime[Any], run: Run[Any]) -> Story:
    now = await run.refresh()
    surroundings = Surroundings(
        await run.children(), await runtime.questions.list(run=run.id), await runtime.queues.list(awaited_by=run.id)
    )
    return Story(now, await history(now), None, surroundings)


async def test_answers_signals_and_time_that_is_over_are_told() -> None:
    async with Runtime(app, store="memory://") as runtime:
        run = await runtime.start(patient)
        question = await run.question(timeout=10)
        asking = await around(runtime, run)
        assert "asks\n  ? Sure?  [yes/no] for ada\n" in text(asking)
        assert asking.record()["questions"][0]["id"] == question.id
        await question.answer(True, by="bob")
        await run.signal("go", {"n": 5})
        await run.result(timeout=10)
        told = text(await around(runtime, run))
    assert "  ✓ answer    true by bob" in told
    assert '  • signal    go {"n": 5}' in told
    assert "  • wait      nothing came in time" in told
    assert "asks" not in told


async def test_children_are_told_the_first_of_many_and_how_the_others_are() -> None:
    async with Runtime(app, store="memory://") as runtime:
        run = await runtime.start(family, 12)
        async for happened in run.events():
            if happened.kind == "run.waiting":
                break
        story = await around(runtime, run)
        children = await run.children()
        lines = text(story).split("\n")
        assert len([line for line in lines if line.startswith("  …") and "patient" in line]) == 10
        [more] = [line for line in lines if line.startswith("  and 2 more; in all: ")]
        assert sum(map(int, re.findall(r"\d+", more))) == 2 + 12
        assert len(story.record()["children"]) == 12
        assert f"parent   {run.id}" in text(await around(runtime, children[0]))
        await run.cancel(by="ada", reason="enough")
        await run.result(timeout=10)
        assert "cancelled (enough)" in text(await around(runtime, run))


async def test_a_retry_tells_what_it_took_over_and_only_its_own_steps() -> None:
    tries.clear()
    async with Runtime(app, store="memory://") as runtime:
        run = await runtime.start(doubled)
        await run.result(timeout=10)
        again = await run.retry()
        await again.result(timeout=10)
        told = text(await around(runtime, again))
    assert f"retries  {run.id} (1 step taken over)" in told
    assert "greet" not in told
    assert "  ✓ shaky " in told


@app.agent
async def doubled(ctx: Context) -> str:
    await ctx.step(greet, "Ada")
    return await ctx.step(shaky)
