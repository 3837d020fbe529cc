"""Lanes under random schedules of runs that come, start, wait, are set aside, come back and end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.domain.lane import AWAY, BLOCKED, FREE, enter, leave, release, resize
from stepwell.domain.run import PRIORITY_RANGE, PRIORITY_STEP, place_in_queue
from stepwell.domain.submission import AGENT_LANE, GLOBAL_LANE, KEY_LANE, SESSION_LANE
from tests.unit.domain.lines import Row, Rows, check

LAYOUT: Final = (SESSION_LANE, SESSION_LANE, KEY_LANE, KEY_LANE, AGENT_LANE, AGENT_LANE, GLOBAL_LANE)
BY_KIND: Final = ([0, 1], [2, 3], [4, 5], [6])


class Act(NamedTuple):
    """One thing that happens, to the run (or lane) that the number picks."""

    verb: str
    pick: int
    amount: int


Schedule: TypeAlias = Sequence[Act]

VERBS: Final = (
    *("submit", "submit", "submit", "claim", "claim", "child", "park", "due", "pause", "resume", "end", "give up"),
)
capacities = st.tuples(*[st.just(1) if kind == SESSION_LANE else st.integers(1, 3) for kind in LAYOUT])
acts = st.builds(Act, st.sampled_from((*VERBS, "delay", "resize")), st.integers(0, 99), st.integers(0, 200))
schedules = st.lists(acts, max_size=60)


def lanes_of(pick: int) -> list[int]:
    """At most one lane of each kind, or none at all."""
    choices = [pick // 3**digit % 3 for digit in range(len(BY_KIND))]
    return [lanes[choice] for lanes, choice in zip(BY_KIND, choices, strict=True) if choice < len(lanes)]


class World:
    """Runs that come, start, wait, are set aside, come back and end, over lanes of some size."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.rows = Rows(*zip(LAYOUT, sizes, strict=True))

    def act(self, act: Act) -> None:
        match act.verb:
            case "submit" | "delay":
                self.submit(act)
            case "resize":
                number = act.pick % len(LAYOUT)
                resize(self.rows, number, 1 if LAYOUT[number] == SESSION_LANE else 1 + act.amount % 4)
            case "child":
                self.make_child(act)
            case _:
                self.act_on_run(act)
        check(self.rows)

    def submit(self, act: Act) -> None:
        run = f"r{self.rows.added}"
        self.rows.add(run, *lanes_of(act.pick), at=self.rows.added * 10 - act.amount)
        if act.verb == "submit":
            enter(self.rows, run)

    def make_child(self, act: Act) -> None:
        able = [run for run, row in self.rows.runs.items() if row.running]
        if able:
            wide = [lane for lane in lanes_of(act.amount) if LAYOUT[lane] != SESSION_LANE]
            self.rows.add_child(f"r{self.rows.added}", able[act.pick % len(able)], *wide)

    def act_on_run(self, act: Act) -> None:
        able = [run for run, row in self.rows.runs.items() if ABLE[act.verb](row)]
        if able:
            self.do(act.verb, able[act.pick % len(able)])

    def do(self, verb: str, run: str) -> None:
        row = self.rows.runs[run]
        match verb:
            case "claim":
                row.running, row.started, row.place = True, True, row.place._replace(fresh=0)
            case "park" | "give up":
                row.running = False
                release(self.rows, run, keep_session=verb == "park")
            case "due":
                enter(self.rows, run)
            case "pause":
                row.running, row.held = False, True
                release(self.rows, run, keep_session=True)
            case "resume":
                row.held = False
            case "end":
                leave(self.rows, run)

    def take_a_turn(self, run: str, turns: dict[str, int]) -> None:
        """The run goes on: it comes back, starts and waits again, or ends after so many turns."""
        if self.rows.runs[run].gate == AWAY:
            self.do("due", run)
        elif not turns[run]:
            self.do("end", run)
        else:
            turns[run] -= 1
            self.do("claim", run)
            self.do("park", run)

    def finish(self) -> None:
        """Everything that is set aside comes back, and whatever is free runs to its end."""
        for row in self.rows.runs.values():
            row.held = False
        while self.rows.runs:
            for run in [run for run, row in self.rows.runs.items() if row.gate == AWAY]:
                self.do("due", run)
            free = [run for run, row in self.rows.runs.items() if row.gate == FREE]
            assert free, f"nobody can go on: {self.rows.runs}"
            self.do("end", free[-1])
            check(self.rows)


ABLE: dict[str, Callable[[Row], bool]] = {
    "claim": lambda row: row.gate == FREE and not row.running and not row.held,
    "park": lambda row: row.running,
    "give up": lambda row: row.running,
    "due": lambda row: row.gate == AWAY and not row.held,
    "pause": lambda row: not row.held,
    "resume": lambda row: row.held,
    "end": lambda row: True,
}


@settings(max_examples=300)
@given(capacities, schedules)
def test_whatever_happens_tickets_are_neither_lost_nor_doubled_nor_left_while_somebody_waits(
    sizes: Sequence[int], schedule: Schedule
) -> None:
    world = World(sizes)
    for act in schedule:
        world.act(act)


@settings(max_examples=300)
@given(capacities, schedules)
def test_whatever_happened_every_run_comes_to_its_end(sizes: Sequence[int], schedule: Schedule) -> None:
    world = World(sizes)
    for act in schedule:
        world.act(act)
    world.finish()
    assert [room.taken for room in world.rows.lanes.values()] == [0] * len(LAYOUT)
    assert not any(world.rows.lines.values())


@settings(max_examples=300)
@given(schedules.map(lambda schedule: [act for act in schedule if act.verb not in ("delay", "give up")]))
def test_the_runs_of_a_session_start_one_by_one_in_the_order_of_their_submission(schedule: Schedule) -> None:
    world = World([1] * len(LAYOUT))
    sessions: dict[int, list[str]] = {0: [], 1: []}
    for act in schedule:
        world.act(act)
        for number, seen in sessions.items():
            holders = world.rows.holders(number)
            assert len(holders) <= 1
            seen += holders - set(seen)
    for seen in sessions.values():
        assert seen == sorted(seen, key=lambda run: int(run[1:]))


@given(st.integers(-PRIORITY_RANGE, PRIORITY_RANGE), st.lists(st.integers(-PRIORITY_RANGE, PRIORITY_RANGE), min_size=1))
def test_only_what_comes_within_the_worth_of_its_priority_overtakes_a_run(own: int, others: list[int]) -> None:
    """A lane of one ticket, whose holder ends whenever another run arrives: one per step of priority."""
    rows = Rows((KEY_LANE, 1))
    rows.add_and_enter("holder", 0)
    rows.add_and_enter("mine", 0, at=place_in_queue(0, own))
    for number in range(2 * PRIORITY_RANGE + 2):
        if rows.holders(0) == {"mine"}:
            break
        priority = others[number % len(others)]
        rows.add_and_enter(f"other {number}", 0, at=place_in_queue(number * PRIORITY_STEP + 1, priority))
        leave(rows, *rows.holders(0))
        for run in rows.holders(0) - {"mine"}:
            assert rows.runs[run].place.at < rows.runs["mine"].place.at
    assert rows.holders(0) == {"mine"}


@given(schedules, st.lists(st.integers(0, 99), min_size=1))
def test_a_run_that_never_started_gets_its_tickets_although_others_wake_again_and_again(
    schedule: Schedule, picks: list[int]
) -> None:
    """Those that started go ahead, but they are no more than the lanes let in, and each has an end."""
    world = World([1] * len(LAYOUT))
    for act in schedule:
        world.act(act)
    for row in world.rows.runs.values():
        row.held = False
    turns = dict.fromkeys(world.rows.runs, 3)
    for pick in itertools.cycle(picks):
        if not world.rows.runs:
            break
        able = [run for run, row in world.rows.runs.items() if row.gate != BLOCKED]
        world.take_a_turn(able[pick % len(able)], turns)
        check(world.rows)
