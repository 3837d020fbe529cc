"""Every store, driven at random beside the pure model."""

from functools import partial
from pathlib import Path

from hypothesis import Phase, settings

from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.machine import machine_for
from tests.conformance.stores import maker

PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
QUICK = settings(max_examples=80, stateful_step_count=40, deadline=None, phases=PHASES)
ON_DISK = settings(QUICK, max_examples=40)


def harness_over(name: str, folder: Path) -> Harness:
    """A harness over that kind of store."""
    return Harness(maker(name, folder))


TestMemoryMachine = machine_for(partial(harness_over, "memory"), QUICK)
TestSqliteMachine = machine_for(partial(harness_over, "sqlite"), ON_DISK)
