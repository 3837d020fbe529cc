"""Looks at every state of a small world, breadth first: what is broken is shown with the shortest way that leads there.

A world's states are numbers, so that millions of them fit. Safety is the world's own business: whatever it raises as
`Broken` while a state is expanded ends the search. Liveness is checked here, when all states are known: from each of
them an end can be reached by steps that are nobody's fault and nobody's whim.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

Edge: TypeAlias = tuple[int, int]
"""A label, and the state to which it leads. Odd labels are steps that bring a run nearer to its end."""


class Broken(AssertionError):
    """A promise does not hold; says which."""


class Violation(AssertionError):
    """What was found, as people read it: the promise, and the steps that lead there."""


class World(Protocol):
    """What is explored."""

    def starts(self) -> Iterable[int]:
        """The states in which it may begin."""
        ...

    def steps(self, state: int) -> Iterable[Edge]:
        """Everything that may happen next. Raises `Broken`."""
        ...

    def has_ended(self, state: int) -> bool:
        """Whether nothing needs to happen any more."""
        ...

    def label(self, label: int) -> str:
        """What happened, in words."""
        ...

    def describe(self, state: int) -> str:
        """The state in one line."""
        ...


class Report(NamedTuple):
    """How much was looked at, and how many seconds of processor time that took."""

    states: int
    edges: int
    depth: int
    seconds: float


class Search:
    """One exploration of a world."""

    def __init__(self, world: World, *, at_most: int) -> None:
        self._world = world
        self._at_most = at_most
        self._indexes: dict[int, int] = {}
        self._states: list[int] = []
        self._parents = array("i")
        self._labels = array("i")
        self._towards = array("i")
        self._ranges = array("q", [0])
        self._edges = 0

    def run(self) -> Report:
        """Expand every state, then look for those that no end can be reached from. Raises `Violation`."""
        begun = time.process_time()
        try:
            for state in self._world.starts():
                self._add(state, -1, 0)
        except Broken as broken:
            raise Violation(f"{broken}, before anything has happened") from None
        self._expand_all()
        self._check_liveness()
        depth = len(self._way(len(self._states) - 1)) - 1
        return Report(len(self._states), self._edges, depth, time.process_time() - begun)

    def _add(self, state: int, parent: int, label: int) -> int:
        index = self._indexes[state] = len(self._states)
        self._states.append(state)
        self._parents.append(parent)
        self._labels.append(label)
        return index

    def _expand_all(self) -> None:
        states, find, towards = self._states, self._indexes.get, self._towards.append
        steps, add, edges, index = self._world.steps, self._add, 0, 0
        while index < len(states):
            try:
                for label, state in steps(states[index]):
                    edges += 1
                    known = find(state)
                    if known is None:
                        known = add(state, index, label)
                    if label & 1:
                        towards(known)
            except Exception as error:
                what = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
                raise Violation(self._story(index, what)) from error
            self._ranges.append(len(self._towards))
            index += 1
            if len(states) > self._at_most:
                raise Violation(f"the world has more than {self._at_most} states: it is not bounded as it should be")
        self._edges = edges

    def _check_liveness(self) -> None:
        """Mark what leads to an end, from the last states to the first, until a sweep finds no more."""
        good = bytearray(map(self._world.has_ended, self._states))
        left = [index for index in range(len(good) - 1, -1, -1) if not good[index]]
        ranges, towards = self._ranges, self._towards
        while left:
            stuck = []
            for index in left:
                if any(map(good.__getitem__, towards[ranges[index] : ranges[index + 1]])):
                    good[index] = 1
                else:
                    stuck.append(index)
            if len(stuck) == len(left):
                raise Violation(self._story(min(stuck), "P10: from here no end can be reached any more"))
            left = stuck

    def _way(self, index: int) -> list[int]:
        way = [index]
        while self._parents[way[-1]] >= 0:
            way.append(self._parents[way[-1]])
        return way[::-1]

    def _story(self, index: int, what: str) -> str:
        way = self._way(index)
        lines = [f"{what}", f"found after {len(self._states)} states, {len(way) - 1} steps from the start:"]
        for number, place in enumerate(way):
            happened = self._world.label(self._labels[place]) if number else "the start"
            lines.append(f"{number:4}. {happened:<44} | {self._world.describe(self._states[place])}")
        return "\n".join([*lines, f"then: {what}"])


def explore(world: World, *, at_most: int = 20_000_000) -> Report:
    """Look at all states of a world, `at_most` so many. Raises `Violation`."""
    return Search(world, at_most=at_most).run()
