"""A process is killed at a write or a sync of its workload: whoever opens the store next finds every promise kept.

`POWER_SCALE` above 1 kills at each position in turn instead of a sample (`make power`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.integration.sqlite.power.judgement import judge
from tests.integration.sqlite.power.workload import Acknowledged

SCALE = int(os.environ.get("POWER_SCALE", "1"))
SEED, MOVES = 11, 30
SAMPLE = 20
PROGRAM = Path(__file__).with_name("victim.py")


class Victims:
    """The program that forks victims."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end_at(self, position: int, path: Path) -> int:
        """What became of a child that was to die at this write or sync."""
        path.parent.mkdir()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{position} {path}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture
def victims() -> Iterator[Victims]:
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(SEED), str(MOVES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        yield Victims(process)


def _told(path: Path) -> list[str]:
    return Path(f"{path}.told").read_text().splitlines()


async def test_no_promise_is_broken_wherever_the_process_dies(folder: Path, victims: Victims) -> None:
    whole = folder / "whole" / "data.db"
    assert victims.end_at(0, whole) == 0
    every = [sign * position for position in range(1, int(_told(whole)[-1]) + 1) for sign in (1, -1)]
    positions = every if SCALE > 1 else Random(SEED).sample(every, SAMPLE)
    promised = killed = 0
    for position in positions:
        path = folder / str(position) / "data.db"
        killed += victims.end_at(position, path) == -signal.SIGKILL
        promises = [Acknowledged(*json.loads(line)) for line in _told(path) if line.startswith("[")]
        promised += len(promises)
        verdict = await judge(path, promises)
        assert verdict.fine, (position, verdict)
    assert promised > len(positions)
    assert killed >= 0.9 * len(positions)  # the last ones are not reached when the log is moved less often
