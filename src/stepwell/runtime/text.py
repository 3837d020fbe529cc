"""The text that a run streams, joined from its events, so that whoever shows it need not know of attempts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final, Self, cast

from stepwell.domain import event
from stepwell.domain.event import Event

AGAIN: Final = "\n[the text begins again]\n"


class TextPart(str):
    """A piece of streamed text: a `str` that knows where it comes from.

    `stream` names the stream within its run, `attempt` the attempt that showed it. `restarted` marks the piece that
    tells that an attempt was lost and the next one shows something else.
    """

    stream: str
    attempt: int
    restarted: bool

    def __new__(cls, text: str, *, stream: str = "", attempt: int = 0, restarted: bool = False) -> Self:
        """The piece, with where it comes from."""
        made = super().__new__(cls, text)
        made.stream = stream
        made.attempt = attempt
        made.restarted = restarted
        return made


async def joined(events: AsyncIterator[Event]) -> AsyncGenerator[TextPart]:
    """The text of a run's events, in their order, each piece once. Closing it closes the events."""
    join = TextJoin()
    async with aclosing(cast("AsyncGenerator[Event]", events)) as told_events:
        async for told in told_events:
            if told.kind == event.TEXT_DELTA:
                for part in join.feed(told.data["stream"], told.data["text"], told.data["attempt"]):
                    yield part


class TextJoin:
    """Joins the deltas of a run's streams. What an earlier attempt has shown of a stream is compared with what the
    present one shows: it is given again only from where the two differ.
    """

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}

    def feed(self, stream: str, text: str, attempt: int) -> list[TextPart]:
        """The pieces that a delta adds: none while it repeats, two where it shows that the text begins again."""
        known = self._streams.get(stream)
        if known is None:
            known = self._streams[stream] = _Stream(attempt)
        if attempt > known.attempt:
            known.attempt, known.retold = attempt, ""
        pieces = known.add(text)
        last = len(pieces) - 1
        return [
            TextPart(piece, stream=stream, attempt=attempt, restarted=number < last)
            for number, piece in enumerate(pieces)
        ]


class _Stream:
    """What was given of a stream. `retold` is what the present attempt showed of it, while it repeats another one."""

    __slots__ = ("attempt", "given", "retold")

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.given = ""
        self.retold: str | None = None

    def add(self, text: str) -> list[str]:
        if self.retold is None:
            self.given += text
            return [text]
        self.retold += text
        if self.given.startswith(self.retold):
            return []
        told, self.retold = self.retold, None
        before, self.given = self.given, told
        return [told[len(before) :]] if told.startswith(before) else [AGAIN, told]
