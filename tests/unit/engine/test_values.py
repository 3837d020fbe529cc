"""Code sees the same typed objects in the first run and on every replay; what does not round-trip fails at once."""

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel

from stepwell.app import App
from stepwell.domain import event
from stepwell.ports.context import Context
from tests.unit.engine.lives import AFTER_AGENT, Crash, Lives
from tests.unit.engine.samples import effect, executed


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: int


@dataclass(frozen=True)
class Order:
    id: str
    total: Decimal
    placed: date
    colours: tuple[Colour, ...] = ()
    notes: dict[str, list[int]] = field(default_factory=dict)


class Ticket(BaseModel):
    id: int
    orders: list[Order]
    due: datetime | None = None


ORDER = Order("a-1", Decimal("9.90"), date(2026, 2, 28), (Colour.RED, Colour.BLUE), {"b": [1], "a": []})
TICKET = Ticket(id=7, orders=[ORDER], due=datetime(2026, 1, 1, 12, tzinfo=UTC))

VALUES: list[tuple[Any, Any]] = [
    (Any, None),
    (Any, {"a": [1, 2.5, "é\u2028", True, None]}),
    (int, 2**53 - 1),
    (float, 0.1),
    (float, -0.0),
    (str, ""),
    (bytes, b"\x00\xff"),
    (date, date(2026, 2, 28)),
    (datetime, datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)),
    (timedelta, timedelta(days=1, microseconds=1)),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=5)),
    (PurePosixPath, PurePosixPath("/tmp/x")),
    (Colour, Colour.BLUE),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], ()),
    (set[int], {1, 2, 3}),
    (frozenset[str], frozenset("ab")),
    (dict[int, str], {1: "a"}),
    (int | None, None),
    (Order | None, ORDER),
    (Point, Point(1, 2)),
    (Order, ORDER),
    (Ticket, TICKET),
    (list[Order | Ticket], [ORDER, TICKET]),
    (dict[str, tuple[Point, set[Colour]]], {"a": (Point(0, 1), {Colour.RED})}),
]


def typed(annotation: Any, value: Any) -> Any:
    """A step that returns the value, annotated so."""

    async def give() -> Any:
        effect("give")
        return value

    give.__annotations__["return"] = annotation
    return give


@pytest.mark.parametrize(
    ("annotation", "value"), VALUES, ids=[f"{n} {annotation!r:.40}" for n, (annotation, _) in enumerate(VALUES)]
)
@pytest.mark.parametrize("crashes", [(), (AFTER_AGENT,), (AFTER_AGENT, AFTER_AGENT)], ids=["first", "again", "thrice"])
async def test_the_first_run_and_a_replay_see_the_same_typed_object(
    annotation: Any, value: Any, crashes: tuple[str, ...]
) -> None:
    app = App("test")
    seen: list[Any] = []
    give = typed(annotation, value)

    @app.agent
    async def agent(ctx: Context) -> None:
        seen.append(await ctx.step(give))
        seen.append((await ctx.gather(ctx.step(give)))[0])

    lives = Lives(app)
    run = await lives.run(crashes=tuple(Crash(point) for point in crashes))
    await lives.output(run)
    assert len(seen) == 2 * (1 + len(crashes))
    for result in seen:
        assert type(result) is type(value)
        assert repr(result) == repr(value) or result == value
        assert result is not value or not isinstance(value, (list, dict, set, Ticket))
    assert executed == {"give": 2}


@pytest.mark.parametrize(
    ("annotation", "value", "place"),
    [
        (Any, (1, 2), "result"),
        (Any, {"at": date(2026, 1, 1)}, "result.at"),
        (Any, [b"raw"], "result[0]"),
        (dict, {"a": {1: "b"}}, "result.a"),
        (list[int], [1, "2"], "result[1]"),
        (Any, {"a": [float("inf")]}, "result.a[0]"),
        (str, "\ud800", "result"),
        (str, "a\0", "result"),
        (int, 2**53, "result"),
        (Order, object(), "result"),
        (int, True, "result"),
        (tuple[int, ...], [1], "result"),
    ],
    ids=range(12),
)
async def test_what_does_not_round_trip_fails_at_once_and_names_the_place(
    annotation: Any, value: Any, place: str
) -> None:
    app = App("test")
    give = typed(annotation, value)

    @app.agent
    async def agent(ctx: Context) -> None:
        await ctx.step(give)

    lives = Lives(app)
    error = await lives.error(await lives.run())
    assert (error["type"], error["step"]) == ("StepFailed", "0/1")
    assert error["code"].startswith("value.")
    assert place in error["message"]


async def test_a_value_that_contains_itself_or_is_too_deep_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    for value in (loop, deep):
        app = App("test")
        give = typed(Any, value)

        @app.agent
        async def agent(ctx: Context) -> None:
            await ctx.step(give)  # noqa: B023 - called within its own turn

        lives = Lives(app)
        assert (await lives.error(await lives.run()))["code"] == "value.depth"


async def test_the_result_is_what_was_stored_and_not_the_object_that_the_step_still_holds() -> None:
    app = App("test")
    kept: list[Any] = []

    async def give() -> list[int]:
        kept.append([1])
        return kept[-1]  # type: ignore[no-any-return]

    @app.agent
    async def agent(ctx: Context) -> list[int]:
        result = await ctx.step(give)
        kept[-1].append(2)
        return result

    lives = Lives(app)
    assert await lives.output(await lives.run()) == [1]


@pytest.mark.parametrize("size", [255 * 1024, 300 * 1024, 5 * 1024 * 1024])
async def test_a_large_result_lies_beside_the_journal_and_is_the_same(size: int) -> None:
    app = App("test")
    text = "ä" * (size // 2)

    async def give() -> str:
        effect("give")
        return text

    @app.agent
    async def agent(ctx: Context) -> list[Any]:
        result = await ctx.step(give)
        return [len(result), result == text]

    lives = Lives(app)
    run = await lives.run(crashes=(Crash(AFTER_AGENT),))
    assert await lives.output(run) == [len(text), True]
    assert executed == {"give": 1}
    [fact] = await lives.facts(run, event.STEP_COMPLETED)
    assert ("ref" in fact) == (size > 256 * 1024)
    assert all(len(entry.data.encode()) < 300 * 1024 for entry in await lives.journal(run))


async def test_a_large_input_and_output_lie_beside_the_journal_too() -> None:
    app = App("test")

    @app.agent
    async def agent(ctx: Context, text: str) -> str:
        return text + "!"

    lives = Lives(app)
    run = await lives.run(agent, "x" * 500_000, crashes=(Crash(AFTER_AGENT),))
    assert await lives.output(run) == "x" * 500_000 + "!"
    assert all(len(entry.data) < 1000 for entry in await lives.journal(run))


async def test_bytes_that_are_gone_hold_the_run_and_say_which() -> None:
    app = App("test")

    async def give() -> str:
        return "x" * 500_000

    @app.agent
    async def agent(ctx: Context) -> int:
        return len(await ctx.step(give))

    lives = Lives(app)
    run = await lives.submit()
    await lives.live(run, crash=Crash(AFTER_AGENT))
    lives.store._blobs.clear()  # type: ignore[attr-defined]
    await lives.live(run)
    hold = await lives.hold(run)
    assert (hold["why"], hold["step"]) == ("diverged", "0/1")


async def test_a_result_that_no_longer_fits_its_annotation_holds_the_run() -> None:
    old, new = App("test"), App("test")
    give = typed(int, 5)

    @old.agent(name="agent")
    async def before(ctx: Context) -> int:
        result: int = await ctx.step(give)
        return result

    @new.agent(name="agent")
    async def after(ctx: Context) -> str:
        changed = typed(Order, ORDER)
        result = await ctx.step(changed)
        return str(result)

    lives = Lives(old)
    run = await lives.submit()
    await lives.live(run, crash=Crash(AFTER_AGENT))
    await lives.live(run, app=new)
    hold = await lives.hold(run)
    assert (hold["why"], hold["step"]) == ("diverged", "0/1")
    assert "another shape" in hold["message"]
    assert executed == {"give": 1}


async def test_an_input_that_this_program_cannot_read_holds_the_run() -> None:
    old, new = App("test"), App("test")

    @old.agent(name="agent")
    async def before(ctx: Context, n: int) -> int:
        return n

    @new.agent(name="agent")
    async def after(ctx: Context, order: Order) -> str:
        return order.id

    lives = Lives(old)
    run = await lives.submit(value=3)
    await lives.live(run, app=new)
    assert (await lives.hold(run))["step"] == "the input"


async def test_an_output_that_is_not_data_fails_the_run_and_names_the_place() -> None:
    app = App("test")

    @app.agent
    async def agent(ctx: Context) -> dict[str, int]:
        return {"a": "b"}  # type: ignore[dict-item]

    lives = Lives(app)
    error = await lives.error(await lives.run())
    assert error["code"] == "value.round_trip"
    assert "output.a" in error["message"]
