"""A crash storm: workers over one file are killed again and again while runs go through. Counted from the file and
from the effects.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from tests.acceptance.audit import AUDIT_TRIGGER, audit, output_of

PROGRAM = Path(__file__).parent / "program.py"
SCALE = int(os.environ.get("STORM_SCALE", "1"))
RUNS, STEPS, WORKERS, KILLS = 60 * SCALE, 12, 3, 25 * SCALE
KILL_EVERY = 0.25
LIMIT = 120 * SCALE


@dataclass
class Storm:
    """Worker processes over one file, a seeded killer, and the evidence."""

    folder: Path
    seed: int
    workers: list[subprocess.Popen[str]] = field(default_factory=list)
    kills: int = 0

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/storm.db"

    def start_worker(self) -> None:
        command = [sys.executable, str(PROGRAM), "worker", self.store, str(self.folder / "effects")]
        self.workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def kill_one(self, chance: random.Random) -> None:
        victim = self.workers.pop(chance.randrange(len(self.workers)))
        assert victim.poll() is None, "a worker died of something else than the storm"
        victim.kill()
        victim.communicate()
        self.kills += 1
        self.start_worker()

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.communicate()


@pytest.fixture
def storm(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Storm]:
    storm = Storm(tmp_path, request.param)
    yield storm
    storm.stop()


@pytest.mark.storm
@pytest.mark.parametrize("storm", [1], indirect=True)
def test_a_storm_of_kills_loses_nothing_and_repeats_only_what_was_hit(storm: Storm) -> None:
    submitted = _submit(storm)
    _watch_commits(storm.folder / "storm.db")
    for _ in range(WORKERS):
        storm.start_worker()
    for worker in storm.workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "working\n"

    _rage(storm, len(submitted))
    _wait_for_end(storm, len(submitted))

    facts = audit(storm.folder / "storm.db")
    effects = _effects(storm.folder / "effects")
    duplicates = sum(effects.values()) - len(effects)
    print(f"storm: {facts.runs} runs, {storm.kills} kills, {duplicates} of {sum(effects.values())} effects repeated")
    assert storm.kills >= KILLS
    assert facts.faults == []
    assert facts.by_status == {"succeeded": RUNS}
    assert _double_commits(storm.folder / "storm.db") == 0
    assert len(effects) == RUNS * STEPS
    assert duplicates <= storm.kills
    for number, run in enumerate(submitted):
        assert output_of(storm.folder / "storm.db", run) == [number * 1000 + step for step in range(STEPS)]


def _submit(storm: Storm) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "submit", storm.store, str(RUNS)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def _watch_commits(database: Path) -> None:
    db = apsw.Connection(str(database))
    db.execute(AUDIT_TRIGGER)
    db.close()


def _rage(storm: Storm, runs: int) -> None:
    """Kill on a clock of its own, whatever the workers are doing, until there were enough faults."""
    chance = random.Random(storm.seed)
    next_kill = time.monotonic() + KILL_EVERY
    while storm.kills < KILLS:
        _pause_until(next_kill)
        storm.kill_one(chance)
        next_kill = time.monotonic() + KILL_EVERY


def _pause_until(moment: float) -> None:
    while (left := moment - time.monotonic()) > 0:
        time.sleep(left)


def _wait_for_end(storm: Storm, runs: int) -> None:
    deadline = time.monotonic() + LIMIT
    db = apsw.Connection(str(storm.folder / "storm.db"), flags=apsw.SQLITE_OPEN_READONLY)
    while _count(db, "select count(*) from run where ended_at is not null") < runs:
        assert time.monotonic() < deadline, _stuck(db)
        _pause_until(time.monotonic() + 0.02)
    db.close()


def _stuck(db: apsw.Connection) -> str:
    rows = list(db.execute("select id, status, worker, fence, attempt, seq from run where ended_at is null"))
    return f"{len(rows)} runs have not ended after the storm: {rows[:5]}"


def _effects(log: Path) -> Counter[tuple[str, str]]:
    return Counter((run, step) for run, step, _ in (line.split() for line in log.read_text().splitlines()))


def _double_commits(database: Path) -> int:
    db = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    found = _count(db, "select count(*) from (select 1 from storm_audit group by run, step having count(*) > 1)")
    accepted = _count(db, "select count(*) from storm_audit")
    assert accepted == RUNS * STEPS, "the trigger saw every accepted step"
    db.close()
    return found


def _count(db: apsw.Connection, sql: str) -> int:
    return int(next(iter(db.execute(sql)))[0])
