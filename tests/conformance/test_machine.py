"""Every store, driven at random beside the pure model."""

from functools import partial
from pathlib import Path

from hypothesis import settings

from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.machine import machine_for
from tests.conformance.stores import maker

QUICK = settings(max_examples=30, stateful_step_count=40, deadline=None)


def harness_over(name: str, folder: Path) -> Harness:
    """A harness over that kind of store."""
    return Harness(maker(name, folder))


TestMemoryMachine = machine_for(partial(harness_over, "memory"), QUICK)
TestSqliteMachine = machine_for(partial(harness_over, "sqlite"), QUICK)
