"""A process is killed at every boundary that the engine and the store pass. The next process finishes the run, and
nothing is wrong.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import pytest

import stepwell.engine.executor
import stepwell.engine.submission
import stepwell.stores.sqlite.store  # noqa: F401 - imported so that every crash point is declared
from stepwell.ports import crash_point
from tests.acceptance.audit import audit

WORKLOAD = Path(__file__).parent / "workload.py"
EXPECTED = {"first": "ONE", "rest": ["X", "Y", "Z"], "pair": ["LEFT", "RIGHT"], "size": 400_000}
EFFECTS = {"one": 1, "stubborn-try": 2, "heartbeats": 1, "x": 1, "y": 1, "z": 1, "left": 1, "right": 1, "big": 1}

# Points that are passed only after something else went wrong: the crash that prepares them.
PREPARED = {"step.after_settlement": "step.after_function:3", "step.after_settlement:effect": "step.after_intent:1"}
RESUME_POINTS = {name for name in crash_point.declared() if name.startswith("resume.")}
_WITH_OTHERS = ("answer", "cancel", "child", "discard", "pause", "session", "signal", "wait")
PEOPLE_POINTS = {name for name in crash_point.declared() if name.split(".")[0] in _WITH_OTHERS}
POINTS = sorted(crash_point.declared() - RESUME_POINTS - PEOPLE_POINTS)
MET = {
    "output": {"early": 0, "talk": [7, True, "CALLED"], "beside": "SPAWNED", "met": 1},
    "victim": "cancelled",
    "sleeper": "cancelled",
    "dead": False,
}


def run(mode: str, folder: Path, crash_at: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the workload on the folder's store, with a crash point armed or not."""
    command = [sys.executable, str(WORKLOAD)]
    if crash_at is not None:
        command = [sys.executable, "-m", "stepwell.testing.crash", crash_at, str(WORKLOAD)]
    command += [mode, f"sqlite:///{folder}/kill.db", str(folder / "effects")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)


def killed(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether the process died of SIGKILL, and not of anything else."""
    return done.returncode == -signal.SIGKILL


def finish(folder: Path, mode: str = "all") -> dict[str, Any]:
    """Let a process finish undisturbed, and return what it printed."""
    done = run(mode, folder)
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def check_promises(folder: Path, *, kills: int) -> None:
    """P1, P2, P4 and P6, from the file and the effects."""
    facts = audit(folder / "kill.db")
    assert facts.faults == []
    assert facts.by_status == {"succeeded": 1}
    effects = Counter((folder / "effects").read_text().split())
    charges = {name: times for name, times in effects.items() if name.startswith("charge-")}
    assert len(charges) == 1, "one step has one idempotency key, whatever happens"
    assert set(charges.values()) == {1}, "a step with an in_doubt function is not repeated once its effect is there"
    for effect, times in EFFECTS.items():
        assert times <= effects[effect] <= times + kills, "at most once more for each crash that hit this very step"


def test_there_are_enough_boundaries() -> None:
    assert len(crash_point.declared()) >= 30


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at(point: str, tmp_path: Path) -> None:
    kills = 1
    if point in PREPARED:
        assert killed(run("all", tmp_path, PREPARED[point]))
        kills = 2
    done = run("all", tmp_path, point)
    assert killed(done), f"the workload does not pass {point}: {done.returncode} {done.stderr}"
    assert finish(tmp_path)["output"] == EXPECTED
    check_promises(tmp_path, kills=kills)


@pytest.mark.parametrize("nth", [2, 5, 9])
@pytest.mark.parametrize("point", ["commit.before_commit", "commit.after_commit", "step.after_function"])
def test_a_later_kill_at(point: str, nth: int, tmp_path: Path) -> None:
    assert killed(run("all", tmp_path, f"{point}:{nth}"))
    assert finish(tmp_path)["output"] == EXPECTED
    check_promises(tmp_path, kills=1)


def test_kills_one_after_the_other_make_progress_in_between(tmp_path: Path) -> None:
    kills = 0
    while not killed(done := run("all", tmp_path, "step.after_record:2")) or kills < 30:
        if done.returncode == 0:
            break
        assert killed(done), done.stderr
        kills += 1
    assert kills >= 4
    assert finish(tmp_path)["output"] == EXPECTED
    check_promises(tmp_path, kills=kills)


LATER = [("cancel.before_commit", 2), ("cancel.after_commit", 2), ("child.after_start", 2), ("wait.after_opening", 3)]


@pytest.mark.parametrize(("point", "nth"), [*((point, 1) for point in sorted(PEOPLE_POINTS | RESUME_POINTS)), *LATER])
def test_a_kill_while_runs_wait_for_others_at(point: str, nth: int, tmp_path: Path) -> None:
    done = run("people", tmp_path, f"{point}:{nth}")
    assert killed(done), f"the workload does not pass {point}: {done.returncode} {done.stderr}"
    assert finish(tmp_path, "people") == MET
    facts = audit(tmp_path / "kill.db")
    assert facts.faults == []
    assert facts.by_status == {"succeeded": 3, "cancelled": 2, "failed": 1}
    effects = Counter((tmp_path / "effects").read_text().split())
    assert set(effects) == {"called", "spawned"}
    assert max(effects.values()) <= 2
    assert journalled(tmp_path, "signal.received") == 1
    assert journalled(tmp_path, "child.started") == journalled(tmp_path, "child.ended") == 2
    assert (
        journalled(tmp_path, "wait.opened") == 1 + 2 + 1 + 2
    )  # too early; the talk; the joined child; the endless ones


def journalled(folder: Path, kind: str) -> int:
    """How many facts of a kind all journals of the store hold."""
    db = apsw.Connection(str(folder / "kill.db"), flags=apsw.SQLITE_OPEN_READONLY)
    ((count,),) = db.execute("select count(*) from journal where kind = ?", (kind,))
    return int(count)


@pytest.mark.parametrize("point", sorted(RESUME_POINTS))
def test_a_kill_while_a_person_resumes_at(point: str, tmp_path: Path) -> None:
    assert killed(run("hold", tmp_path, "step.after_function"))
    assert run("hold", tmp_path).returncode == 0
    assert killed(run("resume", tmp_path, point))
    done = run("resume", tmp_path)
    assert json.loads(done.stdout)["output"] == "SETTLED", done.stderr
    facts = audit(tmp_path / "kill.db")
    assert facts.faults == []
    assert Counter((tmp_path / "effects").read_text().split()) == {"one": 1}
