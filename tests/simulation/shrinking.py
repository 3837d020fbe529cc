"""Makes a failing plan small: leaves out items and operations for as long as the same promise is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.simulation.plans import Item, Plan
from tests.simulation.world import Result, simulate

MOST_TRIES: Final = 120


def shrink(result: Result, *, tries: int = MOST_TRIES) -> Result:
    """The result of the smallest plan that was found to break the same promise, in at most so many simulations."""
    shrinking = _Shrinking(result, tries)
    while shrinking.leave_out_items() | shrinking.shorten_programs() | shrinking.spare_a_worker():
        pass
    return shrinking.best


class _Shrinking:
    """The smallest failure so far, and how many simulations may still be tried."""

    def __init__(self, result: Result, tries: int) -> None:
        assert result.failure is not None
        self.best = result
        self._promise = result.failure.promise
        self._left = tries

    def _fails(self, plan: Plan) -> bool:
        """Whether the plan breaks the same promise. If so, it is the best from now on."""
        if self._left == 0:
            return False
        self._left -= 1
        tried = simulate(plan)
        if tried.failure is None or tried.failure.promise != self._promise:
            return False
        self.best = tried
        return True

    def leave_out_items(self) -> bool:
        """Leave out as many items as possible, many at once at first."""
        before = len(self.best.plan.items)
        size = before
        while size:
            start = 0
            while start < len(self.best.plan.items):
                if not self._fails(self.best.plan.without(set(range(start, start + size)))):
                    start += size
            size //= 2
        return len(self.best.plan.items) < before

    def shorten_programs(self) -> bool:
        """Leave out operations, one after the other."""
        shortened = False
        while any(self._fails(plan) for plan in _with_shorter_programs(self.best.plan)):
            shortened = True
        return shortened

    def spare_a_worker(self) -> bool:
        """Do without the last worker, where nothing is said of it."""
        plan = self.best.plan
        spared = plan.workers > 1 and all(_spares(item, plan.workers - 1) for item in plan.items)
        return spared and self._fails(plan._replace(workers=plan.workers - 1))


def _with_shorter_programs(plan: Plan) -> Iterator[Plan]:
    for number, item in enumerate(plan.items):
        if item.kind == "start":
            for shorter in _shorter(item.args[2]["ops"]):
                args = (*item.args[:2], item.args[2] | {"ops": shorter}, *item.args[3:])
                yield _with(plan, number, item._replace(args=args))


def _with(plan: Plan, number: int, item: Item) -> Plan:
    return plan._replace(items=(*plan.items[:number], item, *plan.items[number + 1 :]))


def _spares(item: Item, worker: int) -> bool:
    """Whether the item does not need this worker."""
    if item.kind == "start":
        return bool(item.args[5] != worker)
    return not item.is_fault or not item.args or item.kind == "hints" or item.args[0] != worker


def _shorter(operations: list[list[Any]]) -> Iterator[list[list[Any]]]:
    """A program without one of its operations, or with a nested one in the place of what it is nested in."""
    for number, operation in enumerate(operations):
        before, after = operations[:number], operations[number + 1 :]
        yield [*before, *after]
        match operation:
            case ["both", *branches]:
                for branch in branches:
                    yield [*before, *branch, *after]
            case ["call" | "spawn" as verb, agent, program, *rest]:
                for inner in _shorter(program["ops"]):
                    yield [*before, [verb, agent, program | {"ops": inner}, *rest], *after]
            case _:
                pass
