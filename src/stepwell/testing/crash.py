"""Crash points at work: let a process die, stop or fail at a named boundary. For tests; this is the only way to arm a
point from outside.

    python -m stepwell.testing.crash commit.before_commit:2:kill program.py ARGUMENT...

runs the program with the point armed: at its second pass the process kills itself with SIGKILL. Actions are `kill`
(default), `stop` (SIGSTOP, to be continued by the test), `raise` (`Crashed` from inside; `raise=StoreUnavailable` one
of Stepwell's own errors) and `sleep=SECONDS`. Where a command line cannot be changed, `-` in place of the point reads
it from STEPWELL_CRASH_POINT; a program that was started in any other way refuses to work while that is set. What arms
nothing, be it a misspelt point or an action that there is not, is refused before the program begins, with exit code 2.
"""

from __future__ import annotations

import importlib
import math
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from stepwell.domain import errors
from stepwell.ports import crash_point

PASSING: Final = (
    "stepwell.engine.worker",
    "stepwell.engine.submission",
    "stepwell.stores.sqlite.store",
)
"""The modules with which every point is declared."""
USAGE: Final = "use: python -m stepwell.testing.crash POINT[:NTH[:ACTION]] PROGRAM ARGUMENT..."


class Crashed(Exception):
    """Raised at a point that is armed with `raise`."""


@dataclass
class Armed:
    """A point that acts at its nth pass, once."""

    point: str
    nth: int = 1
    action: str = "kill"
    passes: int = 0
    act: Callable[[], None] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.act = _act(self.point, self.action)

    def __call__(self, name: str) -> None:
        if name != self.point:
            return
        with self._lock:
            self.passes += 1
            due = self.passes == self.nth
        if due:
            self.act()


def _act(point: str, action: str) -> Callable[[], None]:
    """What happens at the point."""
    kind, equals, argument = action.partition("=")
    if kind == "raise" and (argument or not equals):
        error = _error(argument)
        return lambda: _raise(error(f"raised at {point}"))
    if kind == "sleep":
        seconds = _seconds(argument)
        return lambda: time.sleep(seconds)
    if action == "kill":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if action == "stop":
        return lambda: os.kill(os.getpid(), signal.SIGSTOP)
    raise ValueError(f"unknown action {action!r}: use kill, stop, raise, raise=ERROR or sleep=SECONDS")


def _raise(error: Exception) -> None:
    raise error


def arm(spec: str) -> Armed:
    """Arm a point from now on, described as `name[:nth[:action]]`, and return it; `disarm` ends it.

    Raises `ValueError` for a point that nobody declares, for a pass that is not a number from 1 on, and for an unknown
    action; nothing is armed then.
    """
    name, *rest = spec.split(":", 2)
    nth, action = (*rest, "", "")[:2]
    armed = Armed(_declared(name), _pass(nth or "1"), action or "kill")
    crash_point.install(armed)
    return armed


def _declared(name: str) -> str:
    for module in PASSING:
        importlib.import_module(module)
    points = crash_point.declared()
    if name in points:
        return name
    near = get_close_matches(name, points, 1)
    told = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(points))}"
    raise ValueError(f"there is no crash point {name!r}: {told}")


def _pass(nth: str) -> int:
    if not nth.isdecimal() or int(nth) < 1:
        raise ValueError(f"{nth!r} is no pass of a crash point: use a number from 1 on, then the action")
    return int(nth)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{text!r} is no time to sleep: use sleep=SECONDS")
    return seconds


def _error(name: str) -> type[Exception]:
    found = getattr(errors, name, None) if name else Crashed
    if not isinstance(found, type) or not issubclass(found, Exception):
        raise ValueError(f"{name!r} is none of Stepwell's errors")
    return found


def disarm() -> None:
    """Make all points inert again."""
    crash_point.install(None)


def main() -> None:
    """Arm the point named by the first argument and run the program named by the second; exit with 2, and say why, when
    that arms nothing.
    """
    given = os.environ.pop(crash_point.VARIABLE, "")  # what this process starts is not armed
    try:
        if len(sys.argv) < 3:
            raise ValueError(f"a point and a program are needed; {USAGE}")
        spec, program, *arguments = sys.argv[1:]
        if spec == "-" and not given:
            raise ValueError(f"- reads the point from {crash_point.VARIABLE}, which is not set; {USAGE}")
        arm(given if spec == "-" else spec)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    sys.argv = [program, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
