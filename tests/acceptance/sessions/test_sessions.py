"""What a session keeps, under runs of two processes: no increment is lost, and nobody sees what is not theirs."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stepwell import Runtime
from stepwell.domain.ids import ENTROPY_BYTES, RUN, make_id
from stepwell.domain.outcome import Payload
from stepwell.domain.submission import SESSION_LANE, Lane, Submission
from stepwell.domain.values import dumps, loads
from stepwell.ports.store import Store
from stepwell.ports.system_clock import SystemClock
from stepwell.stores import make_store
from tests.acceptance.audit import audit, output_of
from tests.acceptance.fleet import Fleet, all_of
from tests.acceptance.sessions.program import Move, alone, app, counting

PROGRAM = Path(__file__).parent / "program.py"
SCALE = int(os.environ.get("STORM_SCALE", "1"))
RUNS, TIMES = 100, 100
EXAMPLES = 40 * SCALE


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(PROGRAM, tmp_path) as fleet:
        yield fleet


async def test_no_increment_is_lost_between_two_processes(fleet: Fleet) -> None:
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        fleet.start_many(2)
        runs = await all_of([partial(runtime.start, counting, TIMES, session="shared")] * RUNS)
        results = await all_of([partial(run.result, timeout=120) for run in runs])
        session = await runtime.sessions.get("shared")
        assert await session.state.get("count", int) == RUNS * TIMES
    assert max(result.output for result in results) == RUNS * TIMES
    assert len({result.output for result in results}) == RUNS, "each saw a count that no other saw"
    assert fleet.number("select version from session_value where key = 'count'") == RUNS * TIMES
    assert fleet.kinds("session.changed") == RUNS * TIMES
    assert fleet.number("select count(distinct json_extract(data, '$.worker')) from journal"
                        " where kind = 'run.started'") == 2, "both processes had a part"  # fmt: skip
    assert audit(fleet.database).faults == []


async def test_isolated_runs_of_one_session_see_only_what_they_wrote(fleet: Fleet) -> None:
    async with Runtime(app, store=fleet.store, worker=False) as runtime:
        fleet.start_many(2)
        beside = await runtime.start(counting, 20, session="shared")
        runs = await all_of([partial(runtime.start, alone, 10, session="shared")] * 20)
        for run in runs:
            assert (await run.result(timeout=60)).output == [10, run.id]
        assert (await beside.result(timeout=60)).output == 20
        session = await runtime.sessions.get("shared")
        assert await session.state.get("count", int) == 20
        assert await session.messages() == []
    assert audit(fleet.database).faults == []


# ---------------------------------------------------------------- whose data it is


class Part(NamedTuple):
    """A run of an example: whose it is, how it meets others, and what it does. The last number of a move counts up."""

    tenant: str
    session: str
    agent: str
    verbs: Sequence[tuple[str, str]]


MOVES = st.one_of(
    st.tuples(st.sampled_from(["set", "get"]), st.sampled_from(["a", "b"])),
    st.just(("add", "sum")),
    st.just(("say", "words")),
)
PARTS = st.builds(
    Part,
    st.sampled_from(["", "other"]),
    st.sampled_from(["x", "y"]),
    st.sampled_from(["shared", "in_turn", "apart"]),
    st.lists(MOVES, max_size=6),
)


@dataclass
class Kept:
    """What runs of one session of one tenant put there."""

    written: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    total: int = 0
    said: list[str] = field(default_factory=list)


def script(part: Part, numbers: Iterator[int]) -> list[Move]:
    return [Move(verb, key, next(numbers)) for verb, key in part.verbs]


def note(kept: Kept, moves: Sequence[Move]) -> None:
    """What will have been written when all of it is done, in whatever order."""
    for verb, key, value in moves:
        if verb == "set":
            kept.written[key].add(value)
        elif verb == "add":
            kept.total += value
        elif verb == "say":
            kept.said.append(f"{key}:{value}")


def seen_alone(moves: Sequence[Move]) -> list[int | None]:
    """What a run returns that nobody else can have influenced."""
    values: dict[str, int] = {}
    seen: list[int | None] = []
    for verb, key, value in moves:
        if verb == "set":
            values[key] = value
        elif verb == "add":
            values[key] = values.get(key, 0) + value
            seen.append(values[key])
        elif verb == "get":
            seen.append(values.get(key, -1))
    return [*seen, sum(verb == "say" for verb, _, _ in moves)]


def check_seen(kept: Kept, moves: Sequence[Move], seen: Sequence[int | None]) -> None:
    """Nobody read a value that was not written in this very session of this very tenant."""
    reads = [(verb, key) for verb, key, _ in moves if verb in ("get", "add")]
    *values, messages = seen
    for (verb, key), value in zip(reads, values, strict=True):
        if verb == "get":
            assert value == -1 or value in kept.written[key], f"{value} of {key} was never written here"
        else:
            assert value is not None
            assert value <= kept.total
    assert messages is not None
    assert messages <= len(kept.said)


async def submit(store: Store, part: Part, session: str, moves: Sequence[Move]) -> str:
    clock = SystemClock()
    now = clock.now()
    run = make_id(RUN, now, os.urandom(ENTROPY_BYTES))
    lanes = (Lane(SESSION_LANE, session, 1),) if part.agent == "in_turn" else ()
    made = Submission(
        id=run,
        agent=part.agent,
        version="1",
        session=session,
        input=Payload(dumps({"moves": [list(move) for move in moves]})),
        input_digest="",
        available_at=now,
        created_at=now,
        timeout=60_000_000,
        tenant=part.tenant,
        lanes=lanes,
    )
    return (await store.submit(made)).run.id


async def ended(store: Store, run: str, tenant: str) -> str:
    """The status in which the run ends."""
    with store.notifier.listen(run) as hints:
        while not (life := (await store.get(run, tenant=tenant)).life).ended:
            await hints.wait(0.25)
    return life.status


async def example(fleet: Fleet, store: Store, parts: Sequence[Part], number: int, numbers: Iterator[int]) -> None:
    kept: defaultdict[tuple[str, str], Kept] = defaultdict(Kept)
    played: list[tuple[Part, str, list[Move], str]] = []
    scripts = [(part, f"{part.session}-{number}", script(part, numbers)) for part in parts]
    for part, session, moves in scripts:
        if part.agent != "apart":
            note(kept[part.tenant, session], moves)
    for part, session, moves in scripts:
        played.append((part, session, moves, await submit(store, part, session, moves)))
    for part, session, moves, run in played:
        assert await asyncio.wait_for(ended(store, run, part.tenant), 60) == "succeeded"
        seen = output_of(fleet.database, run)
        if part.agent == "apart":
            assert seen == seen_alone(moves)
        else:
            check_seen(kept[part.tenant, session], moves, seen)
    for tenant, name in itertools.product(["", "other"], ["x", "y"]):
        await check_kept(store, tenant, f"{name}-{number}", kept[tenant, f"{name}-{number}"])


async def check_kept(store: Store, tenant: str, session: str, kept: Kept) -> None:
    """What is there in the end is what the runs of this session put there, no more and no less."""
    values: dict[str, Any] = {}
    for key in ("a", "b", "sum"):
        found = await store.session_value(session, key, tenant=tenant)
        values[key] = None if found is None or found.value.text is None else loads(found.value.text)
    for key in ("a", "b"):
        assert values[key] in kept.written[key] or (values[key] is None and not kept.written[key])
    assert (values["sum"] or 0) == kept.total
    messages = await store.messages(session, tenant=tenant)
    assert Counter(loads(message.text.text or "null") for message in messages) == Counter(kept.said)


@pytest.mark.storm
def test_what_another_session_or_tenant_keeps_never_appears(fleet: Fleet) -> None:
    numbers, count = itertools.count(1), itertools.count(1)
    with asyncio.Runner() as runner:
        store = make_store(fleet.store)
        runner.run(store.open())
        fleet.start_many(2)

        @settings(max_examples=EXAMPLES, phases=[Phase.generate])  # what processes do is not repeated by shrinking
        @given(st.lists(PARTS, min_size=2, max_size=8))
        def check(parts: list[Part]) -> None:
            runner.run(example(fleet, store, parts, next(count), numbers))

        check()
        runner.run(store.close())
    assert audit(fleet.database).faults == []
