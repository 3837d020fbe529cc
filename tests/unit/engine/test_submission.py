"""Submission: what a caller may give, and what becomes of it."""

import os
from datetime import timedelta
from typing import Any

import pytest

from stepwell.app import App
from stepwell.domain import event
from stepwell.domain.errors import Busy, Conflict, InvalidDefinition, InvalidInput, StepwellError
from stepwell.domain.ids import RUN, SESSION, is_id
from stepwell.ports.context import Context
from stepwell.ports.store import RunQuery
from stepwell.testing.clock import START, ManualClock
from tests.unit.engine.lives import Lives

app = App("test")


@app.agent(version="3", timeout=60)
async def agent(ctx: Context, numbers: list[int]) -> int:
    return sum(numbers)


@pytest.fixture
def lives() -> Lives:
    return Lives(app, clock=ManualClock())


async def nothing_was_stored(lives: Lives) -> bool:
    return await lives.store.find(RunQuery()) == []


class TestWhatIsStored:
    async def test_a_run_begins_in_the_queue(self, lives: Lives) -> None:
        run = await lives.submit(value=[1, 2], priority=5, metadata={"a": "b"})
        record = await lives.record(run)
        assert is_id(RUN, record.id)
        assert record.session == SESSION + record.id.removeprefix(RUN)
        assert (record.agent, record.version, record.timeout) == ("agent", "3", 60_000_000)
        assert (record.priority, record.metadata, record.created_at) == (5, '{"a":"b"}', START)
        assert (record.life.status, record.life.attempt) == ("queued", 0)
        [queued] = await lives.facts(run)
        assert queued == {"agent": "agent", "version": "3", "input": [1, 2], "priority": 5, "available_at": START}

    async def test_ids_follow_the_clock(self, lives: Lives) -> None:
        first = await lives.submit(value=[])
        lives.clock.advance(0.001)  # type: ignore[attr-defined]
        assert first < await lives.submit(value=[])

    @pytest.mark.parametrize(
        ("delay", "seconds"), [(None, 0), (0, 0), (1.5, 1.5), (timedelta(hours=1), 3600), (timedelta(0), 0)]
    )
    async def test_a_delay_is_the_earliest_start(self, lives: Lives, delay: Any, seconds: float) -> None:
        run = await lives.submit(value=[], delay=delay)
        assert (await lives.record(run)).life.available_at == START + seconds * 1_000_000


class TestIdempotency:
    async def test_one_key_makes_one_run(self, lives: Lives) -> None:
        first = await lives.submit(value=[1, 2], idempotency_key="a")
        assert await lives.submit(value=[1, 2], idempotency_key="a") == first
        assert await lives.submit(value=[1, 2], idempotency_key="b") != first

    async def test_equal_inputs_are_equal_however_they_are_written(self, lives: Lives) -> None:
        other = App("other")

        @other.agent
        async def agent(ctx: Context, value: dict[str, int]) -> None: ...

        lives = Lives(other)
        first = await lives.submit(value={"a": 1, "b": 2}, idempotency_key="a")
        assert await lives.submit(value={"b": 2, "a": 1}, idempotency_key="a") == first

    async def test_the_same_key_with_another_input_is_a_conflict(self, lives: Lives) -> None:
        first = await lives.submit(value=[1], idempotency_key="a")
        with pytest.raises(Conflict) as refused:
            await lives.submit(value=[2], idempotency_key="a")
        assert refused.value.code == "idempotency.conflict"
        assert [record.id for record in await lives.store.find(RunQuery())] == [first]


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("value", "told"),
        [
            ("[1]", "input"),
            ([1, "2"], "input[1]"),
            ([True], "input[0]"),
            ({"a": 1}, "input"),
            (None, "input"),
            ([float("nan")], "input[0]"),
            (["\0"], "input[0]"),
            (["\ud800"], "input[0]"),
            (object(), "input"),
            ([2**53], "input[0]"),
        ],
        ids=range(10),
    )
    async def test_an_input_that_does_not_fit_names_its_place(self, lives: Lives, value: Any, told: str) -> None:
        with pytest.raises(StepwellError) as refused:
            await lives.submit(value=value)
        assert isinstance(refused.value, ValueError)
        assert told in refused.value.message
        assert await nothing_was_stored(lives)

    async def test_an_input_that_is_too_large(self, lives: Lives) -> None:
        with pytest.raises(InvalidInput) as refused:
            await lives.submit(value=list(range(300_000)))
        assert refused.value.code == "input.size"
        assert await nothing_was_stored(lives)

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"priority": 101}, InvalidInput),
            ({"priority": -101}, InvalidInput),
            ({"priority": 1.0}, InvalidInput),
            ({"priority": True}, InvalidInput),
            ({"delay": -1}, InvalidDefinition),
            ({"delay": float("inf")}, InvalidDefinition),
            ({"delay": "5s"}, InvalidDefinition),
            ({"idempotency_key": ""}, InvalidInput),
            ({"idempotency_key": "x" * 501}, InvalidInput),
            ({"idempotency_key": 5}, InvalidInput),
            ({"idempotency_key": "\0"}, InvalidInput),
            ({"metadata": {"a": 1}}, InvalidInput),
            ({"metadata": {1: "a"}}, InvalidInput),
            ({"metadata": {"a": "\ud800"}}, InvalidInput),
            ({"metadata": {"a": "x" * 70_000}}, InvalidInput),
        ],
        ids=range(15),
    )
    async def test_options_that_mean_nothing(
        self, lives: Lives, options: dict[str, Any], error: type[StepwellError]
    ) -> None:
        with pytest.raises(error):
            await lives.submit(value=[1], **options)
        assert await nothing_was_stored(lives)

    async def test_a_full_queue(self, lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
        submit = lives.store.submit
        monkeypatch.setattr(lives.store, "submit", lambda submission: submit(submission._replace(queue_bound=2)))
        for _ in range(2):
            await lives.submit(value=[])
        with pytest.raises(Busy) as refused:
            await lives.submit(value=[])
        assert (refused.value.code, refused.value.retryable) == ("queue.full", True)


async def test_entropy_and_clock_decide_the_id() -> None:
    ids = set()
    for _ in range(2):
        lives = Lives(app, clock=ManualClock())
        ids.add(await lives.submit(value=[]))
    assert len(ids) == 1
    lives = Lives(app, clock=ManualClock(), entropy=os.urandom)
    assert await lives.submit(value=[]) not in ids


async def test_a_submission_is_one_fact(lives: Lives) -> None:
    run = await lives.submit(value=[])
    assert [entry.kind for entry in await lives.journal(run)] == [event.RUN_QUEUED]
