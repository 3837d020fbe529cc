"""Named points at which a test may kill, stop or fail the process. Inert unless a test installs a hook, which only
`stepwell.testing.crash` does for a program; nothing here reads the environment but to refuse it.

A point is declared once, where it is passed, so that the set of names is known and each can be held against its kill
test.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from stepwell.domain.errors import InvalidDefinition

VARIABLE: Final = "STEPWELL_CRASH_POINT"

_declared: Final[set[str]] = set()
_hook: Callable[[str], None] | None = None


class CrashPoint:
    """One boundary. Calling it does nothing unless a hook is installed."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if name in _declared:
            raise ValueError(f"crash point {name!r} is declared twice")
        _declared.add(name)
        self.name = name

    def __call__(self) -> None:
        if _hook is not None:
            _hook(self.name)


def declared() -> frozenset[str]:
    """The names of all points that the modules loaded so far pass through."""
    return frozenset(_declared)


def refuse_variable() -> None:
    """Raise `InvalidDefinition` where the environment arms a point: nobody who works in earnest means that."""
    if VARIABLE in os.environ:
        raise InvalidDefinition(
            f"{VARIABLE} is set, and crash points are for tests alone",
            code="config.crash_point",
            hint="unset it; a test that means it starts its program with: python -m stepwell.testing.crash - PROGRAM",
        )


def install(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with the name of every point that is passed from now on; `None` makes the points inert again. For
    tests.
    """
    global _hook  # one hook for the process: the points themselves must cost nothing in production
    _hook = hook


def is_armed() -> bool:
    """Whether a hook is installed: for a place that many points share, to ask once."""
    return _hook is not None
