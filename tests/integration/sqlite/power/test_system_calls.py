"""A process is killed, or the system refuses it, at a write or a sync that it asks the system for: the same promises as
in `test_kills` and `test_faults`, with nothing of ours between SQLite and the system.

Needs `strace`, and leave to trace other processes. So it is part of `make storm` alone, where it fails when they are
missing; `make test` does not collect it (see `conftest`). `STORM_SCALE` is how many times four positions of each kind
are tried; from 100 on, all of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.integration.sqlite.power.judgement import judge
from tests.integration.sqlite.power.workload import Acknowledged

SCALE = int(os.environ.get("STORM_SCALE", "1"))
SEED, MOVES = 11, 30
SAMPLE = 4
ALL = 100
PROGRAM = Path(__file__).with_name("traced.py")
WRITES, SYNCS = ("pwrite64",), ("fdatasync", "fsync")
CODES = {"ENOSPC": "store.full", "EIO": "store.io_error"}

pytestmark = [pytest.mark.storm]


def traced(path: Path, *injected: str) -> int:
    """Run the workload under `strace`; how it ended."""
    path.parent.mkdir()
    strace = shutil.which("strace")
    assert strace is not None, "this storm needs strace: install it, or choose other folders with STORM="
    quickly = [] if any("signal" in each for each in injected) else ["--seccomp-bpf"]  # where that does what it is told
    command = [strace, "-f", *quickly, "-qq", "-o", f"{path}.calls", "-e", f"trace={','.join((*WRITES, *SYNCS))}"]
    command += [part for each in injected for part in ("-e", f"inject={each}")]
    command += [sys.executable, str(PROGRAM), str(SEED), str(MOVES), str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert "ptrace" not in done.stderr, f"this storm needs leave to trace processes: {done.stderr}"
    assert done.returncode in (0, 128 + signal.SIGKILL, -signal.SIGKILL), done.stderr
    return done.returncode


def told(path: Path) -> tuple[list[Acknowledged], dict[str, list[str]] | None]:
    """What was promised, and how it ended if it came to that."""
    lines = Path(f"{path}.told").read_text().splitlines()
    promises = [Acknowledged(*json.loads(line)) for line in lines if line.startswith("[")]
    ends = [json.loads(line) for line in lines if line.startswith("{")]
    return promises, ends[0] if ends else None


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often the busiest thread asks for each call: `strace` counts for each thread anew."""
    path = tmp_path_factory.mktemp("whole") / "store" / "data.db"
    assert traced(path) == 0
    found: dict[str, Counter[str]] = {}
    for thread, call in re.findall(r"^(\d+) +(\w+)\(", Path(f"{path}.calls").read_text(), re.MULTILINE):
        found.setdefault(call, Counter())[thread] += 1
    return {call: max(threads.values()) for call, threads in found.items()}


def positions(calls: dict[str, int], chosen: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Calls of these kinds, each with its number."""
    for call in chosen:
        every = range(1, calls.get(call, 0) + 1)
        some = every if SCALE >= ALL else sorted(Random(SEED).sample(every, min(len(every), SAMPLE * SCALE)))
        for number in some:
            yield call, number


@pytest.mark.parametrize("chosen", [WRITES, SYNCS], ids=["writes", "syncs"])
async def test_a_process_that_is_killed_at_a_call_breaks_no_promise(
    calls: dict[str, int], chosen: tuple[str, ...], folder: Path
) -> None:
    killed = promised = tried = 0
    for call, number in positions(calls, chosen):
        path = folder / f"{call}-{number}" / "data.db"
        killed += traced(path, f"{call}:signal=SIGKILL:when={number}") != 0
        promises, _ = told(path)
        promised += len(promises)
        tried += 1
        verdict = await judge(path, promises)
        assert verdict.fine, (call, number, verdict)
        shutil.rmtree(path.parent)
    print(f"{killed} of {tried} processes were killed; {promised} promises held")
    assert killed >= 0.9 * tried
    assert promised


@pytest.mark.parametrize(("chosen", "code"), [(WRITES, "EIO"), (WRITES, "ENOSPC"), (SYNCS, "EIO")])
async def test_a_call_that_is_refused_breaks_no_promise_and_is_told(
    calls: dict[str, int], chosen: tuple[str, ...], code: str, folder: Path
) -> None:
    refused: Counter[str] = Counter()
    promised = tried = 0
    for call, number in positions(calls, chosen):
        path = folder / f"{call}-{number}" / "data.db"
        assert traced(path, f"{call}:error={code}:when={number}") == 0
        promises, end = told(path)
        assert end is not None, (call, number)
        assert end["half_done"] == [], (call, number)
        refused.update(end["refused"])
        promised += len(promises)
        tried += 1
        verdict = await judge(path, promises)
        assert verdict.fine, (call, number, verdict)
        shutil.rmtree(path.parent)
    print(f"{tried} calls failed with {code}; told as {dict(refused)}; {promised} promises held")
    assert set(refused) == {CODES[code]}
