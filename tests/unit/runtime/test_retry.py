"""A retry: a new run that goes on where another one ended without success."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain.errors import Conflict, Fail, NotFound, RunFailed, StepFailed
from stepwell.domain.retry import Retry
from stepwell.ports.context import Context, StepContext
from stepwell.runtime import Run, Runtime

MEMORY = "memory://"


class World:
    """What steps do outside, counted; and what is broken there until somebody mends it."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.keys: list[str] = []
        self.broken = True


world = World()
app = App("test")


async def work(name: str) -> str:
    world.done[name] += 1
    return name


async def fragile(name: str) -> str:
    world.done[name] += 1
    if world.broken:
        raise ValueError("broken")
    return name


async def charge(step: StepContext, name: str) -> str:
    world.done[name] += 1
    world.keys.append(step.idempotency_key)
    if world.broken:
        raise ValueError("broken")
    return name


@app.agent(version="3")
async def chain(ctx: Context, text: str) -> list[str]:
    first = await ctx.step(work, text)
    second = await ctx.step(fragile, "second")
    return [first, second, await ctx.step(work, "third")]


@app.agent
async def tidy(ctx: Context) -> str:
    try:
        return await ctx.step(fragile, "try")
    except StepFailed:
        await ctx.step(work, "tidy up")
        raise


@app.agent
async def paid(ctx: Context) -> str:
    return await ctx.step(charge, "pay")


@app.agent
async def fan(ctx: Context) -> list[str]:
    return await ctx.map(fragile_when_odd, ["0", "1", "2", "3"], key=str)


async def fragile_when_odd(name: str) -> str:
    return await (fragile if int(name) % 2 else work)(name)


@app.agent
async def waits(ctx: Context) -> list[Any]:
    got = [await ctx.ask("Sure?", bool), await ctx.wait_for("go"), ctx.now(), ctx.uuid(), ctx.random.random()]
    await ctx.emit("seen", {"got": str(got[2])})
    await ctx.step(work, f"{got[3]} {got[4]}")
    await ctx.step(fragile, "last")
    return [got[0], got[1]]


@app.agent
async def child(ctx: Context, name: str) -> str:
    return await ctx.step(work if name == "good" else fragile, name)


@app.agent
async def parent(ctx: Context) -> list[str]:
    return [await ctx.call(child, "good"), await ctx.call(child, "bad"), await ctx.step(work, "after")]


@app.agent
async def careful(ctx: Context) -> list[str]:
    spawned = await ctx.spawn(child, "bad")
    between = await ctx.step(work, "between")
    return [between, (await spawned.result()).output]


@app.agent
async def stuck(ctx: Context) -> str:
    await ctx.step(work, "before")
    spawned = await ctx.spawn(waits)
    await ctx.step(work, "meanwhile")
    return str((await spawned.result()).output) if world.broken else "done"


@app.agent(retry=Retry(2, first_delay=0))
async def dying(ctx: Context) -> str:
    await ctx.step(work, "kept")
    if world.broken:
        raise Fail("not yet", retryable=True)
    return "done"


@app.agent
async def session_writer(ctx: Context) -> int:
    await ctx.session.add("user", "hello")
    await ctx.session.state.update("count", lambda count: count + 1, default=0)
    await ctx.step(fragile, "x")
    return int(await ctx.session.state.get("count"))


@app.agent
async def talker(ctx: Context) -> str:
    await ctx.stream_text("Hello, ")
    await ctx.stream_text("Ada")
    await ctx.step(fragile, "x")
    await ctx.stream_text("!")
    return "done"


@app.agent
async def keeper(ctx: Context) -> str:
    done = await ctx.restore(int) or 0
    while done < 3:
        await ctx.step(fragile if done == 2 else work, f"item {done}")
        done += 1
        await ctx.checkpoint(done)
    await ctx.artifact("a.txt", "kept")
    return "done"


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime[Any]]:
    global world
    world = World()
    async with Runtime(app, store=MEMORY) as opened:
        yield opened


async def ended(run: Run[Any]) -> Run[Any]:
    await run.result(timeout=10)
    return await run.refresh()


async def failed(runtime: Runtime[Any], agent: Any, *words: Any, **more: Any) -> Run[Any]:
    """A run that has failed, in a world that was mended afterwards."""
    run = await ended(await runtime.start(agent, *words, **more))
    assert run.status == "failed"
    world.broken = False
    return run


async def test_what_was_done_is_not_done_again_and_what_failed_is_tried_again(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, chain, "first")
    again = await run.retry()
    assert (await again.result(timeout=10)).output == ["first", "second", "third"]
    assert world.done == {"first": 1, "second": 2, "third": 1}


async def test_it_is_a_new_run_with_the_input_session_and_metadata_of_the_old_one(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, chain, "x", session="cust-42", metadata={"a": "b"}, priority=5, idempotency_key="k")
    again = await run.retry()
    assert again.id != run.id
    assert (again.retry_of, again.session_id, again.metadata, again.version) == (run.id, "cust-42", {"a": "b"}, "3")
    first = await anext(aiter(again.events()))
    assert (first.data["input"], first.data["retry_of"], first.data["priority"]) == ("x", run.id, 5)
    assert (await run.refresh()).status == "failed"


async def test_a_run_without_a_session_shares_the_one_it_had_alone(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, session_writer)
    again = await run.retry()
    assert (await again.result(timeout=10)).output == 1
    assert again.session_id == run.session_id
    assert len(await (await runtime.sessions.get(run.session_id)).messages()) == 1


async def test_effects_keep_their_keys_also_in_the_retry_of_a_retry(runtime: Runtime[Any]) -> None:
    run = await ended(await runtime.start(paid))
    again = await ended(await run.retry())
    assert again.status == "failed"
    world.broken = False
    assert (await ended(await again.retry())).status == "succeeded"
    assert len(world.keys) == 3
    assert len(set(world.keys)) == 1


async def test_what_was_done_on_the_way_to_the_error_is_no_obstacle(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, tidy)
    again = await run.retry()
    assert (await again.result(timeout=10)).output == "try"
    assert world.done == {"try": 2, "tidy up": 1}


async def test_what_was_done_on_the_way_to_the_same_error_is_not_done_again(runtime: Runtime[Any]) -> None:
    run = await ended(await runtime.start(tidy))
    assert (await ended(await run.retry())).status == "failed"
    assert world.done == {"try": 2, "tidy up": 1}


async def test_of_many_only_those_that_failed_are_tried_again(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, fan)
    assert (await (await run.retry()).result(timeout=10)).output == ["0", "1", "2", "3"]
    assert world.done == {"0": 1, "1": 2, "2": 1, "3": 2}


async def test_answers_signals_times_and_random_numbers_are_remembered(runtime: Runtime[Any]) -> None:
    run = await runtime.start(waits)
    await (await run.question(timeout=10)).answer(True)
    await run.signal("go", 5)
    assert (await ended(run)).status == "failed"
    world.broken = False
    again = await run.retry()
    assert (await again.result(timeout=10)).output == [True, 5]
    assert sorted(world.done.values()) == [1, 2]


async def test_a_question_that_was_open_is_asked_again(runtime: Runtime[Any]) -> None:
    run = await runtime.start(waits)
    question = await run.question(timeout=10)
    await run.cancel()
    again = await (await ended(run)).retry()
    asked = await again.question(timeout=10)
    assert asked.id != question.id
    assert asked.text == question.text


async def test_children_that_succeeded_are_kept_and_others_made_anew(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, parent)
    again = await run.retry()
    assert (await again.result(timeout=10)).output == ["good", "bad", "after"]
    assert world.done == {"good": 1, "bad": 2, "after": 1}
    assert len(await again.children()) == 1


async def test_a_spawned_child_that_failed_is_made_anew_and_what_came_after_it_is_not(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, careful)
    again = await run.retry()
    assert (await again.result(timeout=10)).output == ["between", "bad"]
    assert world.done == {"between": 1, "bad": 2}


async def test_a_child_that_was_cancelled_with_its_parent_is_made_anew(runtime: Runtime[Any]) -> None:
    run = await runtime.start(stuck)
    async with asyncio.timeout(10):
        while (await run.refresh()).status != "waiting":
            await asyncio.sleep(0.005)
    await run.cancel()
    await ended(run)
    again = await run.retry()
    async with asyncio.timeout(10):
        while not (children := await again.children()):
            await asyncio.sleep(0.005)
    assert children[0].id != (await run.children())[0].id
    assert (await children[0].question(timeout=10)).text == "Sure?"
    assert world.done == {"before": 1, "meanwhile": 1}


async def test_a_checkpoint_is_kept(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, keeper)
    result = await (await run.retry()).result(timeout=10)
    assert result.output == "done"
    assert [kept.name for kept in result.artifacts] == ["a.txt"]
    assert world.done == {"item 0": 1, "item 1": 1, "item 2": 2}


async def test_text_is_not_shown_twice(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, talker)
    again = await run.retry()
    assert "".join([part async for part in again.text()]) == "Hello, Ada!"


async def test_a_dead_run_is_taken_off_the_list_of_the_dead(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, dying)
    assert [dead.id for dead in await runtime.runs.list(dead=True)] == [run.id]
    again = await run.retry()
    assert (await again.result(timeout=10)).output == "done"
    assert await runtime.runs.list(dead=True) == []
    assert world.done == {"kept": 1}


async def test_it_has_all_its_attempts_anew(runtime: Runtime[Any]) -> None:
    run = await ended(await runtime.start(dying))
    again = await ended(await run.retry())
    assert (run.attempt, again.attempt, again.dead) == (2, 2, True)


async def test_a_run_that_goes_on_or_succeeded_is_not_retried(runtime: Runtime[Any]) -> None:
    run = await runtime.start(waits)
    with pytest.raises(Conflict) as refused:
        await run.retry()
    assert refused.value.code == "run.not_ended"
    world.broken = False
    done = await ended(await runtime.start(paid))
    with pytest.raises(Conflict) as refused:
        await done.retry()
    assert refused.value.code == "run.succeeded"


async def test_the_agent_must_be_at_hand(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, paid)
    other = App("other")
    other.agent(name="unrelated")(chain.fn)
    stranger = Runtime(other, store=MEMORY)
    async with stranger:
        stranger_run = Run(run._record, stranger._entered())
        with pytest.raises(NotFound):
            await stranger_run.retry()


async def test_the_output_of_the_old_run_still_raises(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, paid)
    await run.retry()
    with pytest.raises(RunFailed):
        _ = (await run.result()).output


async def test_a_long_journal_is_taken_over_wholly(runtime: Runtime[Any]) -> None:
    run = await failed(runtime, talkative)
    again = await run.retry()
    assert (await again.result(timeout=30)).ok
    assert len([told async for told in again.events() if told.kind == "custom.n"]) == 1500
    assert (await again.refresh()).attempt == 1


async def test_a_large_input_is_given_again(runtime: Runtime[Any]) -> None:
    text = "x" * 300_000
    run = await failed(runtime, chain, text)
    assert (await (await run.retry()).result(timeout=10)).output[0] == text


@app.agent
async def talkative(ctx: Context) -> None:
    for n in range(1500):
        await ctx.emit("n", {"n": n})
    await ctx.step(fragile, "last")
