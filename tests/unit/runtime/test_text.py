"""Streamed text: each piece is given once, whatever attempts showed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import testing
from stepwell.app import App
from stepwell.domain.event import Event, to_datetime
from stepwell.ports.context import Context
from stepwell.runtime import Runtime
from stepwell.runtime.text import AGAIN, TextJoin, TextPart, joined


def fed(*deltas: tuple[str, str, int]) -> list[str]:
    join = TextJoin()
    return [str(part) for delta in deltas for part in join.feed(*delta)]


def test_pieces_are_given_as_they_come() -> None:
    assert fed(("0/1", "a", 1), ("0/1", "b", 1)) == ["a", "b"]


def test_a_piece_is_a_text_that_knows_where_it_comes_from() -> None:
    [part] = TextJoin().feed("0/1", "a", 3)
    assert (part, part.stream, part.attempt, part.restarted) == ("a", "0/1", 3, False)
    assert isinstance(part, str)
    assert (TextPart("x").stream, TextPart("x").restarted) == ("", False)


def test_what_is_shown_again_is_given_only_from_where_it_is_new() -> None:
    assert fed(("s", "Hello, ", 1), ("s", "Hel", 2), ("s", "lo, Ada", 2), ("s", "!", 2)) == ["Hello, ", "Ada", "!"]


def test_what_is_shown_again_may_break_off_earlier() -> None:
    assert fed(("s", "Hello", 1), ("s", "Hel", 2), ("s", "Hello", 3), ("s", "!", 3)) == ["Hello", "!"]


def test_other_text_is_announced_and_given_whole() -> None:
    join = TextJoin()
    join.feed("s", "Hello, Ada", 1)
    assert join.feed("s", "Hello, ", 2) == []
    parts = join.feed("s", "Bob", 2)
    assert parts == [AGAIN, "Hello, Bob"]
    assert [(part.restarted, part.attempt) for part in parts] == [(True, 2), (False, 2)]
    assert join.feed("s", "!", 2) == ["!"]


def test_streams_do_not_meet() -> None:
    assert fed(("a", "x", 1), ("b", "x", 1), ("a", "x", 2), ("a", "y", 2), ("b", "z", 1)) == ["x", "x", "y", "z"]


@given(st.lists(st.text("ab", max_size=6), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_whoever_reads_from_the_last_announcement_on_has_what_the_last_showing_said(
    texts: list[str], random: Any
) -> None:
    join = TextJoin()
    shown = ""
    for attempt, text in enumerate(texts, 1):
        while text:
            cut = random.randint(1, len(text))
            for part in join.feed("s", text[:cut], attempt):
                shown = "" if part.restarted else shown + part
            text = text[cut:]
    longest = max((text for text in texts if text), key=len, default="")
    last = texts[-1]
    assert shown.startswith(last)
    assert len(shown) <= len(longest)


async def test_events_of_other_kinds_are_passed_over() -> None:
    async def events() -> AsyncIterator[Event]:
        for kind, data in (
            ("run.started", {"attempt": 1}),
            ("text.delta", {"stream": "0/1", "text": "a", "attempt": 1}),
            ("text.completed", {"stream": "0/1", "length": 1}),
        ):
            yield Event(1, kind, to_datetime(0), "run_x", "ses_x", "a", None, None, None, data)

    assert [part async for part in joined(events())] == ["a"]


async def test_who_stops_reading_closes_the_events() -> None:
    closed: list[bool] = []

    async def events() -> AsyncIterator[Event]:
        data = {"stream": "0/1", "text": "a", "attempt": 1}
        try:
            while True:
                yield Event(1, "text.delta", to_datetime(0), "run_x", "ses_x", "a", None, None, None, data)
        finally:
            closed.append(True)

    async with aclosing(joined(events())) as parts:
        async for _ in parts:
            break
    assert closed == [True]


async def test_a_run_gives_its_text_until_its_end() -> None:
    app = App("test")

    @app.agent
    async def talk(ctx: Context) -> None:
        for word in ("one ", "two "):
            await ctx.stream_text(word)
        await ctx.emit("between")
        await ctx.stream_text("three")

    async with Runtime(app, store="memory://") as runtime:
        run = await runtime.start(talk)
        parts = [part async for part in run.text()]
    assert "".join(parts) == "one two three"
    assert [part.stream for part in parts][-1] != parts[0].stream


@pytest.mark.parametrize("text", ["", "a"])
def test_an_empty_piece_adds_nothing(text: str) -> None:
    join = TextJoin()
    given = join.feed("s", text, 1)
    assert "".join(given) == text


class TestCrashes:
    @pytest.mark.parametrize(
        ("second", "shown"),
        [("Hello, Ada", "Hello, Ada"), ("Goodbye", "Hello, \n[the text begins again]\nGoodbye")],
        ids=["the same", "another"],
    )
    async def test_what_a_lost_attempt_had_shown_is_never_mixed_with_the_next(self, second: str, shown: str) -> None:
        app = App("test")
        lives: list[int] = []

        @app.agent
        async def talk(ctx: Context) -> None:
            lives.append(1)
            if len(lives) == 1:
                await ctx.stream_text("Hello, ")
                await asyncio.get_running_loop().create_future()
            await ctx.stream_text(second)

        async with testing.runtime(app) as runtime:
            run = await runtime.start(talk)
            async for told in run.events():
                if told.kind == "text.delta":
                    break
            await runtime.crash()
            parts = [part async for part in run.text()]
        assert "".join(parts) == shown
        assert any(part.restarted for part in parts) is ("again" in shown)
