"""Crash points at work: let a process die, stop or fail at a named boundary. For tests; nothing in production looks at
this.

    python -m stepwell.testing.crash commit.before_commit:2:kill program.py ARGUMENT...

runs the program with the point armed: at its second pass the process kills itself with SIGKILL. Actions are `kill`
(default), `stop` (SIGSTOP, to be continued by the test), `raise` (an error from inside) and `sleep=SECONDS`.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from dataclasses import dataclass, field

from stepwell.ports import crash_point


class Crashed(Exception):
    """Raised at a point that is armed with `raise`."""


@dataclass
class Armed:
    """A point that acts at its nth pass, once."""

    point: str
    nth: int = 1
    action: str = "kill"
    passes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, name: str) -> None:
        if name != self.point:
            return
        with self._lock:
            self.passes += 1
            due = self.passes == self.nth
        if due:
            self._act()

    def _act(self) -> None:
        kind, _, argument = self.action.partition("=")
        match kind:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise Crashed(f"raised at {self.point}")
            case "sleep":
                time.sleep(float(argument))
            case _:
                raise ValueError(f"unknown action {self.action!r}: use kill, stop, raise or sleep=SECONDS")


def arm(spec: str) -> Armed:
    """Arm a point from now on, described as `name[:nth[:action]]`, and return it; `disarm` ends it."""
    name, _, rest = spec.partition(":")
    nth, _, action = rest.partition(":")
    armed = Armed(name, int(nth or 1), action or "kill")
    crash_point.install(armed)
    return armed


def disarm() -> None:
    """Make all points inert again."""
    crash_point.install(None)


def main() -> None:
    """Arm the point named by the first argument and run the program named by the second."""
    spec, program, *arguments = sys.argv[1:]
    arm(spec)
    sys.argv = [program, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
