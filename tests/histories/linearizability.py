"""Whether a history is linearizable: each operation can be given a moment between its call and its return, such that
one after the other they are what a model allows. The search is that of Wing and Gong with Lowe's memory of where it has
been; it knows nothing of what the operations mean.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from tests.histories.history import Operation, Violation

S = TypeVar("S", bound=Hashable)

MOST_OPERATIONS: Final = 300
MOST_LOOKS: Final = 300_000


class Refused(NamedTuple):
    """Why a model does not allow an operation here."""

    why: str


class Model(Protocol[S]):
    """What an object may do, one operation after the other."""

    def start(self) -> S:
        """The state before the first operation."""
        ...

    def after(self, state: S, operation: Operation) -> S | Refused:
        """The state that an operation with this outcome leaves behind."""
        ...

    def perhaps(self, state: S, operation: Operation) -> Iterable[S]:
        """The states that an operation with an unknown outcome may leave behind, but for the one it found."""
        ...


class NotLinearizable(Violation):
    """No order of the operations explains what the clients were told."""


class GaveUp(AssertionError):
    """The search has a bound, and this history exceeds it: nothing is known of it."""


class _Path(NamedTuple):
    """The operations that were put in order so far, the last one first."""

    place: int
    before: _Path | None


def linearize(model: Model[S], operations: Iterable[Operation], *, at_most: int = MOST_LOOKS) -> list[Operation]:
    """The operations in an order that the model allows. Raises `NotLinearizable`, which shows how far one comes, and
    `GaveUp` when there are more than `MOST_OPERATIONS`, or more than `at_most` places to look at.
    """
    ordered = sorted(operations, key=lambda operation: operation.called)
    if len(ordered) > MOST_OPERATIONS:
        raise GaveUp(f"{len(ordered)} operations on one object; at most {MOST_OPERATIONS} are checked")
    return _Search(model, ordered, at_most).run()


class _Search(Generic[S]):
    """One search. A place is the set of operations that have their moment, as bits, and the state they lead to."""

    def __init__(self, model: Model[S], operations: Sequence[Operation], at_most: int) -> None:
        self._model = model
        self._operations = operations
        self._at_most = at_most
        self._returns = [math.inf if each.returned is None else each.returned for each in operations]
        self._required = sum(1 << index for index, end in enumerate(self._returns) if end < math.inf)
        self._seen: set[tuple[int, S]] = set()
        self._stack: list[tuple[int, S, _Path | None]] = [(0, model.start(), None)]
        self._farthest = self._stack[0]

    def run(self) -> list[Operation]:
        while self._stack:
            done, state, path = self._stack.pop()
            if done & self._required == self._required:
                return self._along(path)
            if (done, state) in self._seen:
                continue
            self._seen.add((done, state))
            if len(self._seen) > self._at_most:
                raise GaveUp(f"no verdict after {self._at_most} places; {self._told()}")
            if _settled(done, self._required) > _settled(self._farthest[0], self._required):
                self._farthest = done, state, path
            self._go_on(done, state, path)
        raise NotLinearizable(f"no order explains this history; {self._told()}")

    def _go_on(self, done: int, state: S, path: _Path | None) -> None:
        """Put the places that come next on the stack, what returned first on top."""
        reached: list[tuple[float, tuple[int, S, _Path | None]]] = []
        for index in self._candidates(done):
            for after in self._after(state, index):
                place = done | 1 << index, after, _Path(index, path)
                if after == state:  # it is explained here and changes nothing: no other order needs it later
                    self._stack.append(place)
                    return
                reached.append((self._returns[index], place))
        reached.sort(key=lambda each: -each[0])
        self._stack += [place for _, place in reached]

    def _after(self, state: S, index: int) -> Iterable[S]:
        operation = self._operations[index]
        if operation.returned is None:
            return [after for after in self._model.perhaps(state, operation) if after != state]
        after = self._model.after(state, operation)
        return () if isinstance(after, Refused) else (after,)

    def _candidates(self, done: int) -> list[int]:
        """The operations that may come next: those called before any that is left has returned."""
        found: list[int] = []
        soonest = math.inf
        index = (~done & (done + 1)).bit_length() - 1
        while index < len(self._operations) and self._operations[index].called <= soonest:
            if not done >> index & 1:
                soonest = min(soonest, self._returns[index])
                found.append(index)
            index += 1
        return found

    # ------------------------------------------------------------ what to say

    def _along(self, path: _Path | None) -> list[Operation]:
        found = []
        while path is not None:
            found.append(self._operations[path.place])
            path = path.before
        return found[::-1]

    def _told(self) -> str:
        """The longest order that was found, where it leads, and why it does not go on."""
        done, state, path = self._farthest
        lines = [f"the best order explains {_settled(done, self._required)} of {self._required.bit_count()} operations"]
        lines += [f"    {operation}" for operation in self._along(path)[-8:]]
        lines.append(f"  then it is {state!r}, and what may come next does not fit:")
        for index in self._candidates(done):
            operation = self._operations[index]
            if operation.returned is not None:
                after = self._model.after(state, operation)
                why = after.why if isinstance(after, Refused) else "leads no further"
                lines.append(f"    {operation}: {why}")
        return "\n".join(lines)


def _settled(done: int, required: int) -> int:
    return (done & required).bit_count()
