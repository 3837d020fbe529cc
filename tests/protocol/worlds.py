"""The worlds that are explored: one run with its workers, or a parent and its child."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from stepwell.domain import transitions
from tests.protocol.core import ENDED_CHILD, Bounds
from tests.protocol.explorer import Edge, Report, explore
from tests.protocol.promises import expect
from tests.protocol.runs import CORE, ENDS, MAKES, Runs
from tests.protocol.runs import Edge as RunEdge
from tests.protocol.stored import PAUSES, RESUMES


@contextmanager
def lowered(bounds: Bounds) -> Iterator[None]:
    """The limits on losses are those of the bounds for a while."""
    lowered = {"MAX_LOSSES_AND_EXPIRIES": bounds.lost, "MAX_CONSECUTIVE_LOSSES": bounds.in_a_row}
    kept = {name: vars(transitions)[name] for name in lowered}
    vars(transitions).update(lowered)
    try:
        yield
    finally:
        vars(transitions).update(kept)


class OneRun:
    """A run, the lease that holds it, and leases that were taken away."""

    def __init__(self, bounds: Bounds) -> None:
        self.runs = Runs(bounds)
        self.has_ended = self.runs.has_ended
        self.describe = self.runs.describe

    def starts(self) -> list[int]:
        """With a clean-up and without, due at once and later."""
        hooks = self.runs.bounds.hooks
        return [self.runs.start(hooked=hooked, delayed=later) for hooked in hooks for later in (False, True)]

    def steps(self, state: int) -> list[Edge]:
        """What may happen to the run."""
        return [(label, run) for label, run, _ in self.runs.steps(state)]

    def label(self, label: int) -> str:
        """In words."""
        return self.runs.labels[label >> 1]


class Kin:
    """One of the family: its runs by small numbers, each expanded once. Number 0 is a run that does not exist."""

    def __init__(self, bounds: Bounds) -> None:
        self.runs = Runs(bounds)
        self.numbers: list[int] = [-1]
        self._ids: dict[int, int] = {}
        self._steps: dict[int, list[RunEdge]] = {}
        self._befallen: dict[tuple[int, str], int] = {}

    def number(self, run: int) -> int:
        """The small number of a run."""
        found = self._ids.get(run)
        if found is None:
            found = self._ids[run] = len(self.numbers)
            self.numbers.append(run)
        return found

    def steps(self, number: int) -> list[RunEdge]:
        """What may happen to it."""
        if number not in self._steps:
            found = self.runs.steps(self.numbers[number])
            self._steps[number] = [(label, self.number(run), news) for label, run, news in found]
        return self._steps[number]

    def befall(self, number: int, cause: str) -> int:
        """What a change of the other means for this one."""
        key = number, cause
        if number and key not in self._befallen:
            self._befallen[key] = self.number(self.runs.befall(self.numbers[number], cause))
        return self._befallen[key] if number else 0

    def has_ended(self, number: int) -> bool:
        """Whether it has, or does not exist."""
        return not number or self.runs.has_ended(self.numbers[number])

    def start(self, *, hooked: bool) -> int:
        """As it was submitted."""
        return self.number(self.runs.start(hooked=hooked))

    def describe(self, number: int) -> str:
        """In one line."""
        return self.runs.describe(self.numbers[number]) if number else "none"


_SHIFT: Final = 24
_CHILD_BITS: Final = (1 << _SHIFT) - 1


class Family:
    """A run, and the child that it may make. What the change of one means for the other happens in the same write."""

    def __init__(self, parent: Bounds, child: Bounds) -> None:
        self.parent, self.child = Kin(parent), Kin(child)
        self._checked: set[int] = set()

    def starts(self) -> list[int]:
        """The parent alone, with a clean-up and without."""
        hooks = self.parent.runs.bounds.hooks
        return [self.parent.start(hooked=hooked) << _SHIFT for hooked in hooks]

    def steps(self, state: int) -> list[Edge]:
        """What may happen to either."""
        parent, child = state >> _SHIFT, state & _CHILD_BITS
        found: list[Edge] = []
        for label, after, news in self.parent.steps(parent):
            found += [(_joint(label, 0), after << _SHIFT | kin) for kin in self._children_after(child, news)]
        for label, after, news in self.child.steps(child) if child else ():
            told = self.parent.befall(parent, "child ended") if news & ENDS else parent
            found.append((_joint(label, 1), told << _SHIFT | after))
        for _, each in found:
            if each not in self._checked:
                self._checked.add(each)
                self._check(each >> _SHIFT, each & _CHILD_BITS)
        return found

    def _children_after(self, child: int, news: int) -> list[int]:
        if not news:
            return [child]
        children = [child]
        if news & MAKES and not child:
            children = [self.child.start(hooked=hooked) for hooked in self.child.runs.bounds.hooks]
        for bit, cause in ((ENDS, "cancel"), (PAUSES, "pause"), (RESUMES, "resume")):
            if news & bit:
                children = [self.child.befall(each, cause) for each in children]
        return children

    def _check(self, parent: int, child: int) -> None:
        """What is true of the two."""
        above = self.parent.runs.cores[self.parent.numbers[parent] >> CORE]
        if not child:
            expect(not above.child, "P1: a child exists as soon as its parent has made it")
            return
        below = self.child.runs.cores[self.child.numbers[child] >> CORE].life
        if above.life.ended:
            expect(below.ended or bool(below.cancelling), "no child outlives its parent but to clean up")
            return
        expect(below.ended == (above.child == ENDED_CHILD), "a parent learns the end of its child in the same write")
        expect(not below.ended or "c" not in above.waits, "P10: nobody waits for a child that has ended")

    def has_ended(self, state: int) -> bool:
        """Whether both have."""
        return self.parent.has_ended(state >> _SHIFT) and self.child.has_ended(state & _CHILD_BITS)

    def label(self, label: int) -> str:
        """In words, and of whom."""
        kin, who = (self.child, "child") if label >> 1 & 1 else (self.parent, "parent")
        return f"{who}: {kin.runs.labels[label >> 2]}"

    def describe(self, state: int) -> str:
        """Both in one line."""
        return f"{self.parent.describe(state >> _SHIFT)} | {self.child.describe(state & _CHILD_BITS)}"


def _joint(label: int, child: int) -> int:
    return label >> 1 << 2 | child << 1 | label & 1


# ---------------------------------------------------------------- how large


def _families(common: Bounds) -> Family:
    """A parent that may call a child and wait for it, and for signals where some are kept."""
    return Family(common._replace(waits="cs" if common.kept else "c", child=True), common._replace(kept=0, zombies=0))


class World(NamedTuple):
    """Something to explore: how large, made of what, and how many states there are at least, so that none gets lost."""

    bounds: Bounds
    make: Callable[[Bounds], OneRun | Family]
    at_least: int

    def explore(self) -> Report:
        """Look at all of it, with the limits on losses lowered to its bounds. Raises `Violation`."""
        with lowered(self.bounds):
            return explore(self.make(self.bounds))


_LITTLE: Final = Bounds(errors=0, lost=2, zombies=0)
_LEAST: Final = _LITTLE._replace(lost=1)

SMALL: Final = {
    "claims": World(Bounds(lost=3), OneRun, 100_000),
    "waits": World(_LITTLE._replace(waits="sq", kept=1, hooks=(True,)), OneRun, 15_000),
    "joined waits": World(_LITTLE._replace(waits="sq", joined=True, kept=1, hooks=(False,)), OneRun, 10_000),
    "limits and holds": World(_LITTLE._replace(errors=1, limits=True, holds=True), OneRun, 10_000),
    "families": World(_LEAST._replace(hooks=(False,)), _families, 100_000),
}
"""What the suite looks at."""

LARGE: Final = {
    "claims": World(Bounds(steps=2, zombies=2, lost=3), OneRun, 1_500_000),
    "everything": World(_LITTLE._replace(zombies=1, waits="sq", kept=1, limits=True, holds=True), OneRun, 3_500_000),
    "joined waits": World(Bounds(waits="sq", joined=True, kept=1, lost=2), OneRun, 1_000_000),
    "families": World(_LEAST._replace(kept=1), _families, 3_000_000),
}
"""What takes minutes."""
