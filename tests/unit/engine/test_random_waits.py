"""Whatever a program waits for, whatever it does meanwhile, and whenever its processes die: it ends as if nothing had
happened.
"""

import asyncio
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.domain import event
from stepwell.domain.wait import QUESTION, SIGNAL
from tests.unit.engine.lives import Crash, Lives
from tests.unit.engine.programs import Program, World, app_of, shaky_waiting_programs, waiting_programs
from tests.unit.engine.test_random_programs import check_journal, check_result

EFFORT = settings(max_examples=60)

deaths = st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=2)
"""Each life ends at so many passings of any point, by a crash or, gently, by being told to stop. Two crashes in a row
are what a run can take.
"""


async def answer_all(lives: Lives, run: str) -> None:
    """The world outside: gives whatever the run waits for, a little later."""
    given: set[str] = set()
    while True:
        for facts in await lives.facts(run, event.WAIT_OPENED):
            wait, name = facts["wait"], facts["name"]
            if wait in given or name.endswith("-late") or (await lives.record(run)).life.ended:
                continue
            if facts["type"] == SIGNAL:
                given.add(wait)
                await lives.signal(run, name, f"<{name}>", id=name)
            elif facts["type"] == QUESTION and any(each.wait.id == wait for each in await lives.questions(run)):
                given.add(wait)
                await lives.answer(run, f"<{name}>", text=name)
        await asyncio.sleep(0.002)


async def live_through(segments: list[Program], ends: list[tuple[int, bool]], seed: int) -> tuple[Lives, World, str]:
    world = World(seed)
    lives = Lives(app_of(segments, world), group_commits=seed, park_after=(seed % 3) * 0.002)
    run = await lives.submit()
    outside = asyncio.create_task(answer_all(lives, run))
    try:
        for passing, gentle in ends:
            process = await lives.live(run, crash=Crash(passing=passing, gentle=gentle))
            if not process.stopped.is_set():
                break
        await lives.live(run)
    finally:
        outside.cancel()
        await asyncio.wait([outside])
    return lives, world, run


async def check_waits(lives: Lives, run: str, *, once: bool) -> None:
    """Each question was asked once; nothing is left open; every child has ended."""
    opened = [
        entry for entry in await lives.journal(run, event.WAIT_OPENED) if json.loads(entry.data)["type"] == QUESTION
    ]
    if once:
        assert len({entry.step for entry in opened}) == len(opened)
    assert await lives.questions(run) == []
    assert all(child.life.ended for child in await lives.children(run))


@EFFORT
@given(waiting_programs, deaths, st.integers(0, 2**32))
async def test_a_program_that_waits_ends_as_if_nothing_had_happened(
    segments: list[Program], ends: list[tuple[int, bool]], seed: int
) -> None:
    lives, world, run = await live_through(segments, ends, seed)
    await check_result(lives, run, segments)
    completed = await check_journal(lives, run)
    assert set(completed.values()) <= {1}
    await check_waits(lives, run, once=True)
    for label, count in world.effects.items():
        assert count <= 1 + world.ends[label] + len(ends), f"{label} had {count} effects"
    assert all(len(values) == 1 for values in world.drawn.values())


@EFFORT
@given(shaky_waiting_programs, deaths, st.integers(0, 2**32))
async def test_so_does_one_whose_attempts_fail_and_are_tried_again(
    segments: list[Program], ends: list[tuple[int, bool]], seed: int
) -> None:
    lives, world, run = await live_through(segments, ends, seed)
    await check_result(lives, run, segments)
    await check_journal(lives, run)
    await check_waits(lives, run, once=False)
    assert all(len(values) == 1 for values in world.drawn.values())


async def pause_now_and_then(lives: Lives, run: str, moments: list[int]) -> None:
    """Somebody sets the run aside after so many turns, and lets it go on at once."""
    for turns in moments:
        for _ in range(turns):
            await asyncio.sleep(0)
        if (await lives.record(run)).life.ended:
            return
        await lives.store.pause(run, by="ada")
        await lives.settled(run)
        life = (await lives.record(run)).life
        if not life.ended:
            await lives.store.resume(run, at_seq=life.seq, by="ada")


@EFFORT
@given(waiting_programs, st.lists(st.integers(0, 60), max_size=4), st.integers(0, 2**32))
async def test_pauses_change_nothing(segments: list[Program], moments: list[int], seed: int) -> None:
    world = World(seed)
    lives = Lives(app_of(segments, world), group_commits=seed, park_after=(seed % 3) * 0.002)
    run = await lives.submit()
    outside = asyncio.create_task(answer_all(lives, run))
    async with lives.working():
        await pause_now_and_then(lives, run, moments)
        await lives.settled(run)
    outside.cancel()
    await asyncio.wait([outside])
    await check_result(lives, run, segments)
    completed = await check_journal(lives, run)
    assert set(completed.values()) <= {1}
    await check_waits(lives, run, once=True)
    for label, count in world.effects.items():
        assert count <= 1 + world.ends[label], f"{label} had {count} effects, and nothing was lost"


@EFFORT
@given(shaky_waiting_programs, st.integers(0, 200), st.booleans(), st.integers(0, 2**32))
async def test_a_cancel_at_any_moment_ends_it_once_and_leaves_nothing(
    segments: list[Program], turns: int, by_crash: bool, seed: int
) -> None:
    world = World(seed)
    lives = Lives(app_of(segments, world), group_commits=seed, park_after=(seed % 3) * 0.002)
    run = await lives.submit()
    outside = asyncio.create_task(answer_all(lives, run))
    if by_crash:
        await lives.live(run, crash=Crash(passing=1 + turns % 30))
    async with lives.working() as worker:
        for _ in range(turns):
            await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await lives.store.cancel(run, by="ada")
        await lives.settled(run)
        assert asyncio.get_running_loop().time() - began < 1.5
        await worker.idle()
    outside.cancel()
    await asyncio.wait([outside])
    assert (await lives.record(run)).life.status in ("cancelled", "succeeded")
    assert sum(entry.kind in event.ENDS for entry in await lives.journal(run)) == 1
    await check_journal(lives, run)
    await check_waits(lives, run, once=False)
