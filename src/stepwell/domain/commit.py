"""Commit: everything that one write of a lease holder may contain."""

from __future__ import annotations

from typing import NamedTuple

from stepwell.domain.event import Draft
from stepwell.domain.outcome import Outcome
from stepwell.domain.session import SessionMessage, SessionWrite
from stepwell.domain.submission import Submission
from stepwell.domain.wait import Wait


class Commit(NamedTuple):
    """One atomic write for a leased run: facts, and at the end of an attempt what became of it.

    `number` grows with every commit of a lease. `leased` is the time in microseconds that the attempt has held the run
    so far. `opens` begins waits: each adds its `wait.opened`, and is closed in the same write when what it needs is
    there already. `expires` names waits that are closed as timed out, if nothing closed them before. `submits` makes
    children; one whose id exists already is not made again. `writes` and `messages` change the session.
    """

    number: int
    drafts: tuple[Draft, ...] = ()
    outcome: Outcome | None = None
    leased: int = 0
    opens: tuple[Wait, ...] = ()
    expires: tuple[str, ...] = ()
    submits: tuple[Submission, ...] = ()
    writes: tuple[SessionWrite, ...] = ()
    messages: tuple[SessionMessage, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether it only appends facts, and perhaps ends the attempt: what nearly every commit does."""
        return not (self.opens or self.expires or self.submits or self.writes or self.messages)
