"""Text as it comes: pieces are joined before they are numbered, and ride on whatever is committed next.

The pieces between two other calls of a scope are one stream, which has a place like any call. A stream that was
completed is not shown again. One that a lost attempt had begun is shown again from its start; its pieces carry the
number of that showing, so that a reader never takes two for one.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from stepwell.domain import event
from stepwell.domain.event import Draft
from stepwell.domain.values import dumps
from stepwell.engine.attempt import Attempt
from stepwell.engine.calls import Calls
from stepwell.engine.checks import check_text
from stepwell.engine.replay import Call
from stepwell.engine.scope import Scope

JOIN_SECONDS: Final = 0.05
JOIN_CHARACTERS: Final = 2048
_MOST_AT_ONCE: Final = 32 * 1024
TEXT: Final = "text"


class Stream:
    """One stream of a scope. `silent` when it was completed by an earlier attempt."""

    __slots__ = ("_attempt", "_length", "_parts", "_scope", "_showing", "_size", "_timer", "place", "silent")

    def __init__(self, attempt: Attempt, scope: Scope, place: str, *, silent: bool) -> None:
        self.place = place
        self.silent = silent
        self._attempt = attempt
        self._scope = scope.path
        self._showing = attempt.replay.shown.get(place, 0) + 1
        self._parts: list[str] = []
        self._size = 0
        self._length = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, text: str) -> None:
        """Show text, a moment later."""
        if self.silent:
            return
        self._parts.append(text)
        self._size += len(text)
        self._length += len(text)
        if self._size >= JOIN_CHARACTERS:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(JOIN_SECONDS, self._flush)

    def _flush(self) -> None:
        """Note what was joined. Nobody waits for it: where nothing else is written, a commit of its own takes it."""
        self._note_parts()
        self._attempt.push_notes()

    def _note_parts(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        text, self._parts, self._size = "".join(self._parts), [], 0
        for start in range(0, len(text), _MOST_AT_ONCE):
            piece = {"stream": self.place, "text": text[start : start + _MOST_AT_ONCE], "attempt": self._showing}
            self._attempt.note(Draft(event.TEXT_DELTA, dumps(piece), None), self._scope)

    def close(self) -> None:
        """The next call of the scope begins, or its end has come: the stream is complete."""
        if self.silent:
            return
        self.silent = True
        self._note_parts()
        done = dumps({"stream": self.place, "length": self._length})
        self._attempt.note(Draft(event.TEXT_COMPLETED, done, self.place), self._scope)


class StreamVerbs(Calls):
    """`ctx.stream_text`."""

    async def stream_text(self, text: str, /) -> None:
        if text == "":
            return
        check_text(text, "streamed text")
        await self._open()
        scope = self._scope("stream_text")
        if scope.stream is None:
            place = scope.next_place()
            record = self._attempt.recall(Call(event.TEXT_COMPLETED, place, TEXT, ""))
            scope.stream = Stream(self._attempt, scope, place, silent=record is not None)
        stream: Any = scope.stream
        stream.add(text)
        await self._attempt.notes_written()
