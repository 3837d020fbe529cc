"""Runs in the writer's working set: as they are stored, and what has become of them since."""

from __future__ import annotations

from typing import Any, Final

from stepwell.domain.event import Entry
from stepwell.domain.run import QUEUED, WAITING, Lifecycle, RunRecord
from stepwell.ports.store import Control
from stepwell.stores.sqlite.statements import FACTS

_FACTS_END: Final = 1 + len(FACTS)
_CALM: Final = Control()


class Row:
    """One run.

    `n` is its number in the file (0 until it is inserted), `facts` what never changes (empty until somebody needs it).
    `entries` are facts for the journal that are not written yet; `whole` says that more of the lifecycle changed than
    an append changes, `fresh` that the whole row was inserted just now.
    """

    __slots__ = ("entries", "facts", "fresh", "id", "life", "n", "whole")

    def __init__(self, n: int, run_id: str, facts: tuple[Any, ...], life: Lifecycle) -> None:
        self.n = n
        self.id = run_id
        self.facts = facts
        self.life = life
        self.entries: list[Entry] = []
        self.whole = False
        self.fresh = False

    @property
    def record(self) -> RunRecord:
        """The run as readers see it. The facts must have been loaded."""
        return RunRecord._make((*self.facts, self.life))

    @property
    def control(self) -> Control:
        """What the run's holder is told."""
        life = self.life
        if life.cancelling or life.pausing:
            return Control(bool(life.cancelling), bool(life.pausing))
        return _CALM


def life_row(columns: list[Any]) -> Row:
    """A row from `n, id` and the lifecycle's columns."""
    return Row(columns[0], columns[1], (), Lifecycle._make(columns[2:]))


def whole_row(columns: list[Any]) -> Row:
    """A row from `n`, the facts' and the lifecycle's columns."""
    return Row(columns[0], columns[1], tuple(columns[1:_FACTS_END]), Lifecycle._make(columns[_FACTS_END:]))


def is_claimable(life: Lifecycle) -> bool:
    """Whether a worker may take the run once it is due."""
    return life.hold is None and (life.status == QUEUED or life.status == WAITING)


def is_in_queue(life: Lifecycle) -> bool:
    """Whether the run counts for the queue's bound."""
    return life.hold is None and life.status == QUEUED
