"""Whatever a program does, and whenever its processes die: it ends as if nothing had happened."""

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.domain import event
from stepwell.domain.run import MAX_CONSECUTIVE_LOSSES
from stepwell.engine import resumption
from tests.unit.engine.lives import Crash, Lives
from tests.unit.engine.programs import Program, World, app_of, changed, result_of, shaky_programs, steady_programs

crashes = st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=6)
"""Each life ends at so many passings of any point after its start, by a crash or, gently, by being told to stop."""

EFFORT = settings(max_examples=60)


async def live_through(
    segments: list[Program], deaths: list[tuple[int, bool]], seed: int
) -> tuple[Lives, World, str, int]:
    """Run a program to its end, with the deaths on the way."""
    world = World(seed)
    lives = Lives(app_of(segments, world), group_commits=seed)
    run = await lives.submit()
    died = 0
    for passing, gentle in deaths:
        life = (await lives.record(run)).life
        hopeless = life.losses + 1 >= MAX_CONSECUTIVE_LOSSES - 1
        point = "commit.after" if hopeless else None
        process = await lives.live(run, crash=Crash(point, passing=passing, gentle=gentle))
        if not process.stopped.is_set():
            break
        died += 1
    await lives.live(run)
    return lives, world, run, died


async def check_journal(lives: Lives, run: str) -> Counter[tuple[str, str]]:
    """The journal has no gap, and gives how often each call was completed."""
    journal = await lives.journal(run)
    assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
    completed: Counter[tuple[str, str]] = Counter()
    for entry in journal:
        if entry.kind == event.STEP_COMPLETED:
            facts = json.loads(entry.data)
            completed[str(entry.step), facts["digest"]] += 1
    return completed


async def check_result(lives: Lives, run: str, segments: list[Program]) -> None:
    last = (await lives.journal(run))[-1]
    assert last.kind == event.RUN_SUCCEEDED, last
    assert await lives.output(run) == [result_of(program) for program in segments]


@EFFORT
@given(steady_programs, crashes, st.integers(0, 2**32))
async def test_a_program_ends_as_if_nothing_had_happened(
    segments: list[Program], deaths: list[tuple[int, bool]], seed: int
) -> None:
    lives, world, run, died = await live_through(segments, deaths, seed)
    await check_result(lives, run, segments)
    completed = await check_journal(lives, run)
    assert set(completed.values()) <= {1}
    for label, count in world.effects.items():
        assert count <= 1 + world.ends[label] + died, f"{label} had {count} effects and {died} crashes"
    assert all(len(values) == 1 for values in world.drawn.values())


@EFFORT
@given(shaky_programs, crashes, st.integers(0, 2**32))
async def test_so_does_one_whose_attempts_fail_and_are_tried_again(
    segments: list[Program], deaths: list[tuple[int, bool]], seed: int
) -> None:
    lives, world, run, _ = await live_through(segments, deaths, seed)
    await check_result(lives, run, segments)
    await check_journal(lives, run)
    assert all(len(values) == 1 for values in world.drawn.values())


@EFFORT
@given(steady_programs, st.integers(0, 2**32), st.integers(0, 2**32))
async def test_a_replay_in_another_order_of_events_gives_the_same_results(
    segments: list[Program], first: int, second: int
) -> None:
    world = World(first)
    lives = Lives(app_of(segments, world), group_commits=first)
    run = await lives.submit()
    await lives.live(run, crash=Crash("executor.after_agent"))
    effects = dict(world.effects)
    other = World(second, ends=world.ends)
    await lives.live(run, app=app_of(segments, other))
    await check_result(lives, run, segments)
    assert dict(world.effects) == effects
    assert other.effects == {}
    assert all(world.drawn[label] == values for label, values in other.drawn.items())


HOW = ["other arguments", "left out", "another in front", "another kind"]


@EFFORT
@given(steady_programs, st.integers(1, 12), st.integers(0, 2**32), st.sampled_from(HOW), st.data())
async def test_a_changed_program_is_held_before_it_repeats_anything_and_the_old_one_finishes(
    segments: list[Program], passing: int, seed: int, how: str, data: st.DataObject
) -> None:
    world = World(seed)
    lives = Lives(app_of(segments, world), group_commits=seed)
    run = await lives.submit()
    await lives.live(run, crash=Crash("commit.after", passing=passing))
    done = await positioned_labels(lives, run)
    if not done or (await lives.record(run)).life.ended:
        return
    label = data.draw(st.sampled_from(done))
    other = [changed(program, label, how) for program in segments]
    await lives.live(run, app=app_of(other, world))
    assert (await lives.record(run)).life.shown == "diverged", (label, how)
    assert world.effects["new"] == 0
    assert world.effects[f"{label} changed"] == 0
    await resumption.resume(lives.store, lives.clock, await lives.record(run), by="ada", verdict=None)
    await lives.live(run)
    await check_result(lives, run, segments)
    completed = await check_journal(lives, run)
    assert set(completed.values()) <= {1}
    for one, count in world.effects.items():
        assert count <= 2 + world.ends[one], f"{one} had {count} effects and one crash"


async def positioned_labels(lives: Lives, run: str) -> list[str]:
    """The labels of the calls that a replay from the newest checkpoint on has to meet again at their places."""
    labels: list[str] = []
    for entry in await lives.journal(run):
        facts = json.loads(entry.data)
        if entry.kind == event.CHECKPOINT_SAVED:
            labels = []
        elif entry.step is None or ":" in entry.step:
            continue
        elif entry.kind == event.STEP_COMPLETED and "result" in facts:
            labels.append(facts["result"].strip("<>").split(" ")[0])
        elif entry.kind.startswith(event.CUSTOM):
            labels.append(facts["label"])
        elif entry.kind == event.ARTIFACT_SAVED:
            labels.append(facts["name"].removesuffix(".txt"))
    return labels
