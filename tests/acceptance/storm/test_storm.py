"""Crash storms: workers over one file are killed and stopped, and the file locked by a stranger, again and again, while
runs are submitted and go through. Then every promise is held against what is there.

`storm-pr` runs with five seeds in `make test`; `storm-night` in `make storm`; `storm-release`, until 3,000 faults, in
`make storm STORM=release`. The bounds of time are those of the promises: see `verdict` for what is not counted. On a
machine that came late too often for them a short storm says that it judged no times, and a long one fails.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.acceptance.storm.figures import LATE, keep_figures
from tests.acceptance.storm.storm import BUGS, NIGHT, PR, RELEASE, UNFENCED, Profile, Storm
from tests.acceptance.storm.verdict import Verdict, evidence_of, judge

LONG = int(os.environ.get("STORM_SCALE", "1")) > 1
STORMS = [(PR, seed) for seed in range(1, 6)]
if os.environ.get("STORM") == "release":
    STORMS = [(RELEASE, 1)]
elif LONG:
    STORMS.append((NIGHT, 1))


def storm_of(folder: Path, profile: Profile, seed: int) -> Verdict:
    """Let a storm rage to its end, and judge."""
    folder.mkdir()
    with Storm(folder, profile, seed) as storm:
        storm.begin()
        storm.rage()
        storm.calm()
        return judge(evidence_of(storm))


@pytest.mark.storm
@pytest.mark.filterwarnings(f"always:{LATE}:UserWarning")
@pytest.mark.parametrize(("profile", "seed"), STORMS, ids=lambda value: str(getattr(value, "name", value)))
def test_a_storm_breaks_no_promise(tmp_path: Path, profile: Profile, seed: int) -> None:
    verdict = storm_of(tmp_path / "storm", profile, seed)
    calm = None if profile is PR else storm_of(tmp_path / "calm", profile.calm(), seed)
    keep_figures(verdict, calm, seed)
    assert verdict.broken() == {}
    assert verdict.times_are_judged or profile is PR, "these figures would tell of the machine: it was too busy"
    assert verdict.accepted >= profile.runs
    assert sum(verdict.faults.values()) >= profile.faults
    assert verdict.faults.keys() == {"kill", "stop", "lock"}
    assert verdict.hits > 0
    assert verdict.takings > 0
    assert verdict.blocking > 0, "no stop has hit a worker in the middle of a write"


@pytest.mark.storm
def test_a_build_without_the_fence_is_caught_by_a_storm(tmp_path: Path) -> None:
    with Storm(tmp_path, BUGS, seed=1, program=UNFENCED) as storm:
        storm.begin()
        storm.rage(until=storm.found)
        verdict = judge(evidence_of(storm))
    assert {"double commits", "zombie writes"} <= verdict.broken().keys()
