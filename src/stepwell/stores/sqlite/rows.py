"""Runs in the writer's working set: as they are stored, and what has become of them since."""

from __future__ import annotations

from typing import Any, Final

from stepwell.domain.event import Entry
from stepwell.domain.run import QUEUED, WAITING, Lifecycle, RunRecord
from stepwell.ports.store import Control
from stepwell.stores.sqlite.statements import FACTS

HAS_PARENT: Final = 1
HAS_CHILDREN: Final = 2
HAS_WAITS: Final = 4
HAS_LANES: Final = 8
"""With what other rows a run may be connected (`ties`): for most runs with none, and so nothing is looked for."""

_FACTS_AT: Final = 3
_LIFE_AT: Final = _FACTS_AT + len(FACTS)
_TENANT: Final = FACTS.index("tenant")
_PARENT: Final = FACTS.index("parent")
_HOOKED: Final = FACTS.index("hooked")
_CALM: Final = Control()


class Row:
    """One run.

    `n` is its number in the file (0 until it is inserted), `facts` what never changes (empty until somebody needs it).
    `entries` are facts for the journal that are not written yet; `whole` says that more of the lifecycle changed than
    an append changes, `tied` that `ties` or `gate` did, `fresh` that the whole row was inserted just now. `made` counts
    the runs that were made before it in the batch. `gate` is what the run's lanes say to a claim (`domain.lane`),
    stored as `blocked`.
    """

    __slots__ = ("entries", "facts", "fresh", "gate", "id", "life", "made", "n", "tied", "ties", "whole")

    def __init__(
        self, n: int, run_id: str, facts: tuple[Any, ...], life: Lifecycle, ties: int = 0, gate: int = 0
    ) -> None:
        self.n = n
        self.id = run_id
        self.facts = facts
        self.life = life
        self.ties = ties
        self.gate = gate
        self.made = 0
        self.entries: list[Entry] = []
        self.whole = False
        self.tied = False
        self.fresh = False

    @property
    def tenant(self) -> str:
        """The run's tenant. The facts must have been loaded."""
        return str(self.facts[_TENANT])

    @property
    def parent(self) -> str | None:
        """The id of the run that made this one. The facts must have been loaded."""
        parent: str | None = self.facts[_PARENT]
        return parent

    @property
    def hooked(self) -> bool:
        """Whether the run's agent has a clean-up for cancels. The facts must have been loaded."""
        return bool(self.facts[_HOOKED])

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
    """A row from `n, ties, blocked, id` and the lifecycle's columns."""
    n, ties, gate, run_id = columns[:4]
    return Row(n, run_id, (), Lifecycle._make(columns[4:]), ties, gate)


def whole_row(columns: list[Any]) -> Row:
    """A row from `n, ties, blocked`, the facts' and the lifecycle's columns."""
    n, ties, gate = columns[:_FACTS_AT]
    facts = tuple(columns[_FACTS_AT:_LIFE_AT])
    return Row(n, facts[0], facts, Lifecycle._make(columns[_LIFE_AT:]), ties, gate)


def is_claimable(life: Lifecycle) -> bool:
    """Whether a worker may take the run once it is due, unless its lanes are full."""
    return life.hold is None and (life.status == QUEUED or life.status == WAITING)


def is_in_queue(life: Lifecycle) -> bool:
    """Whether the run counts for the queue's bound."""
    return life.hold is None and life.status == QUEUED
