"""For tests of agents and of adapters: a runtime whose time jumps, the clock behind it, and the conformance suite of
the store port.

    from stepwell.testing import runtime

    async def test_the_reminder_comes_after_three_days() -> None:
        async with runtime(app) as rt:
            assert (await rt.run(remind, "Ada")).output == "reminded"

Names are loaded when they are first used. `stepwell.testing.conformance` needs pytest, the rest does not.
"""

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from stepwell.testing.composition import TestingRuntime as TestingRuntime
    from stepwell.testing.composition import runtime as runtime
    from stepwell.testing.pace import Clock as Clock
    from stepwell.testing.stuck import Stuck as Stuck

_HOME_OF = {
    "Clock": "stepwell.testing.pace",
    "Stuck": "stepwell.testing.stuck",
    "TestingRuntime": "stepwell.testing.composition",
    "runtime": "stepwell.testing.composition",
}

__all__ = ["Clock", "Stuck", "TestingRuntime", "runtime"]


def __getattr__(name: str) -> _typing.Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'stepwell.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(module), name)
    return value
