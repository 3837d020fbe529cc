"""What a storm came to: every promise held against the store's file, the effects, and what the clients were told.

Reads past all of Stepwell's code, after the storm. A machine that came late is not blamed on anybody: while the
watcher, a process that wants nothing but a short sleep and a few bytes on the disk, was kept waiting, no time is
counted. Nor is any while a stopped worker held the store's write lock: that time is the stop's.

How much lateness may be left out has a bound, since the product makes load too. What must never happen is always
judged; a storm that was late for more than `MOST_LATE_TO_JUDGE` of it says that its times were not judged, and one that
was late for more than `MOST_LATE` fails.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.acceptance.audit import Audit, audit
from tests.acceptance.fleet import looking_at
from tests.acceptance.storm.storm import Profile, Storm, Vitals
from tests.acceptance.storm.tenures import Causes, History, Tenure, histories_of
from tests.acceptance.storm.weather import STOP_LEASES, Fault, Span, late_spans, overlap, within

SLACK: Final = 1.0
DRAIN_LEASES: Final = 2
MORE_MEMORY: Final = 1.2
MORE_FILES: Final = 4
"""Two of the three readers of a store start when they are needed, with two files each."""
MOST_LATE_TO_JUDGE: Final = 1 / 4
"""Of the storm, and of the times in which runs recovered: with more of it, times tell of the machine alone."""
MOST_LATE: Final = 1 / 2
"""With more of it nobody else than the storm itself can be blamed for it."""
MOST_UNJUDGED: Final = 1 / 10
FEW: Final = 3
"""So many recoveries one stall of the machine may hide."""


class Evidence(NamedTuple):
    """What a storm leaves behind."""

    profile: Profile
    database: Path
    effects: Path
    logs: Sequence[Path]
    faults: Sequence[Fault]
    late: Sequence[Span]
    began: int
    nearly_over: int
    over: int
    before: Vitals
    after: Vitals


def evidence_of(storm: Storm) -> Evidence:
    """What this storm left behind so far."""
    assert storm.before is not None
    return Evidence(
        storm.profile,
        storm.database,
        storm.effects,
        storm.logs,
        storm.faults,
        late_spans(storm.late),
        storm.began,
        storm.nearly_over,
        storm.over,
        storm.before,
        storm.after or storm.before,
    )


class Gap(NamedTuple):
    """How long a run that a fault hit made no progress, in seconds; how much of that the machine was late; and how much
    is left as the run's own, when that and the stops of others are left out.
    """

    fault: Fault
    run: str
    whole: float
    late: float
    own: float

    def is_too_late_to_tell(self, bound: float) -> bool:
        """Whether the run would be beyond its bound, but for a machine that was late for most of the time."""
        counted = self.own + self.late
        return counted > bound and self.late > counted / 2


@dataclass
class Verdict:
    """What was found. All lists of offenders are empty, and no time is above its bound, if the promises hold."""

    profile: Profile
    audit: Audit
    before: Vitals
    after: Vitals
    accepted: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    blocking: int = 0
    blocked: float = 0.0
    commits: int = 0
    ends: int = 0
    effects: int = 0
    lost: list[str] = field(default_factory=list)
    two_runs: list[str] = field(default_factory=list)
    double_commits: list[str] = field(default_factory=list)
    zombie_writes: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    missing_effects: list[str] = field(default_factory=list)
    duplicates: int = 0
    uncaused_duplicates: list[str] = field(default_factory=list)
    takings: int = 0
    robbed: list[str] = field(default_factory=list)
    rewrites: list[str] = field(default_factory=list)
    wrong_dead: list[str] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    drain: float = 0.0
    stall: float = 0.0
    seconds: float = 0.0

    def longest(self, kind: str) -> float:
        """The longest own gap after faults of a kind, in seconds, among those that tell anything."""
        unjudged = self.unjudged
        return max((gap.own for gap in self.gaps if gap.fault.kind == kind and gap not in unjudged), default=0.0)

    @property
    def steps_per_second(self) -> float:
        return self.commits / self.seconds

    @property
    def late_share(self) -> float:
        """How much of the storm the machine was late, or of the times in which runs recovered if that is more."""
        of_storm = self.stall / self.seconds if self.seconds > 0 else 0.0
        whole = sum(gap.whole for gap in self.gaps)
        return max(of_storm, sum(gap.late for gap in self.gaps) / whole if whole > 0 else 0.0)

    @property
    def times_are_judged(self) -> bool:
        """Whether the bounds of time were held against what was measured: not with a machine that was mostly late."""
        return self.late_share <= MOST_LATE_TO_JUDGE

    @property
    def unjudged(self) -> list[Gap]:
        """The recoveries of which the machine's lateness leaves nothing to be told."""
        return [gap for gap in self.gaps if gap.is_too_late_to_tell(self._bound(gap))]

    def _bound(self, gap: Gap) -> float:
        stopped = STOP_LEASES if gap.fault.kind == "stop" else 0.0
        return self.profile.lease * (1 + stopped) + SLACK

    def broken(self) -> dict[str, object]:
        """Every promise that does not hold, with what shows it."""
        found: dict[str, object] = {
            "lost runs": self.lost,
            "two runs for one key": self.two_runs,
            "double commits": self.double_commits,
            "zombie writes": self.zombie_writes,
            "rewritten facts": self.rewrites,
            "robbed holders": self.robbed,
            "order": [*self.disorder, *self.audit.gaps, *self.audit.ends_not_once, *self.audit.status_without_event],
            "missing effects": self.missing_effects,
            "duplicate effects": self.duplicates if self.duplicates > sum(self.faults.values()) else 0,
            "duplicate effects without a cause": self.uncaused_duplicates,
            "wrong dead letters": self.wrong_dead,
            "lateness": self._too_late(),
            "integrity": "" if self.audit.integrity == "ok" else self.audit.integrity,
            "leaks": self._leaks(),
        }
        if self.times_are_judged:
            found |= self._too_slow()
        return {name: what for name, what in found.items() if what}

    def _too_slow(self) -> dict[str, object]:
        unjudged = self.unjudged
        slow = [gap for gap in self.gaps if gap.own > self._bound(gap) and gap not in unjudged]
        return {"recovery": slow, "drain": self.drain if self.drain > DRAIN_LEASES * self.profile.lease else 0}

    def _too_late(self) -> str:
        """That more was late than a machine can be blamed for, if so."""
        if self.late_share > MOST_LATE:
            return f"{self.late_share:.0%} of the time was late"
        if len(self.unjudged) > max(FEW, MOST_UNJUDGED * len(self.gaps)):
            return f"{len(self.unjudged)} of {len(self.gaps)} recoveries were too late to tell anything"
        return ""

    def _leaks(self) -> list[str]:
        before, after = self.before, self.after
        grown = {"files": (before.files + MORE_FILES, after.files), "tasks": (before.tasks, after.tasks)}
        found = [f"{what}: {a}, then {b}" for what, (a, b) in grown.items() if b > a]
        if after.memory > MORE_MEMORY * before.memory:
            found.append(f"memory: {before.memory}, then {after.memory}")
        return found


def judge(evidence: Evidence) -> Verdict:
    """Hold every promise against what is there."""
    verdict = Verdict(evidence.profile, audit(evidence.database), evidence.before, evidence.after)
    verdict.faults = Counter(fault.kind for fault in evidence.faults)
    blocks = [(fault.at, fault.until) for fault in evidence.faults if fault.blocks]
    verdict.blocking, verdict.blocked = len(blocks), overlap(blocks, evidence.began, evidence.over)
    verdict.seconds = (evidence.over - evidence.began) / 1e6
    verdict.stall = overlap(evidence.late, evidence.began, evidence.over)
    numbers = _judge_runs(verdict, evidence)
    _judge_commits(verdict, evidence.database)
    histories = histories_of(evidence.database)
    causes = Causes(evidence.profile.lease, evidence.faults, evidence.late)
    _judge_takings(verdict, histories, causes)
    _judge_effects(verdict, evidence, numbers, histories, causes)
    _judge_times(verdict, evidence, histories)
    return verdict


def _judge_runs(verdict: Verdict, evidence: Evidence) -> Mapping[str, int]:
    """What clients were told, against the runs that there are; gives the number of each run's job."""
    told: defaultdict[str, set[str]] = defaultdict(set)
    for log in evidence.logs:
        for what, number, *rest in map(str.split, log.read_text(encoding="utf-8").splitlines()):
            if what == "accepted":
                told[number].update(rest)
    verdict.accepted = len(told)
    verdict.two_runs = [f"job {number}: {sorted(runs)}" for number, runs in told.items() if len(runs) > 1]
    status: dict[str, str] = dict(_rows(evidence.database, "select id, status from run"))
    verdict.wrong_dead = [run for (run,) in _rows(evidence.database, "select id from run where dead")]
    runs = {run: int(number) for number, ids in told.items() for run in ids}
    verdict.lost = [f"{run}: {status.get(run, 'gone')}" for run in runs if status.get(run) != "succeeded"]
    return runs


def _judge_commits(verdict: Verdict, database: Path) -> None:
    """What the trigger has seen, step by step."""
    rows = _rows(database, "select run, step, number, written, granted, ended from storm_audit order by rowid")
    verdict.commits = len(rows)
    seen = Counter((row[0], row[1]) for row in rows)
    verdict.double_commits = [f"{run} {step}: {times} times" for (run, step), times in seen.items() if times > 1]
    verdict.zombie_writes = [
        f"{run} {step}: written with fence {written}, the run is {'over' if ended else f'given with {granted}'}"
        for run, step, _, written, granted, ended in rows
        if ended or written != granted
    ]
    ends = _rows(database, "select run, kind, written, granted, ended from storm_ends order by rowid")
    verdict.ends = len(ends)
    verdict.zombie_writes += [
        f"{run} {kind}: written with fence {written}, the run is {'over' if ended else f'given with {granted}'}"
        for run, kind, written, granted, ended in ends
        if ended or written != granted
    ]
    verdict.rewrites = [
        f"{run} {seq}: {kind} was {how}" for run, seq, kind, how in _rows(database, "select * from storm_rewrites")
    ]
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for run, _, number, *_ in rows:
        numbers[run].append(number)
    verdict.disorder = [f"{run}: {got}" for run, got in numbers.items() if got != list(range(len(got)))]
    if verdict.commits != sum(verdict.audit.steps.values()):
        verdict.disorder.append(f"{verdict.commits} steps were accepted, {sum(verdict.audit.steps.values())} are there")


def _judge_takings(verdict: Verdict, histories: Mapping[str, History], causes: Causes) -> None:
    """Nobody loses a run without a fault of his own, whatever the journal says of leases and deaths."""
    for run, history in histories.items():
        taken = [tenure for tenure in history.tenures if tenure.taken]
        verdict.takings += len(taken)
        verdict.robbed += [
            f"{run}: taken from {tenure.worker} in step {tenure.step} at {tenure.until:.0f}"
            for tenure in taken
            if not causes.explain(tenure)
        ]


def _judge_effects(
    verdict: Verdict,
    evidence: Evidence,
    numbers: Mapping[str, int],
    histories: Mapping[str, History],
    causes: Causes,
) -> None:
    """Every committed step has had its effect; again only where a fault made its holder lose the run, or give it back,
    in that very step.
    """
    lines = (line.split() for line in evidence.effects.read_text(encoding="utf-8").splitlines())
    effects = Counter((int(job), int(step)) for job, step, *_ in lines)
    verdict.effects = sum(effects.values())
    verdict.duplicates = verdict.effects - len(effects)
    for run, number in sorted(set(_rows(evidence.database, "select run, number from storm_audit"))):
        times = effects[numbers.get(run, 0), number]
        if not times:
            verdict.missing_effects.append(f"{run} step {number}")
        lost = [each for each in histories[run].tenures if each.how in ("taken", "handed back") and each.step == number]
        if times > 1 and times - 1 > (caused := sum(map(causes.explain, lost))):
            verdict.uncaused_duplicates.append(f"{run} step {number}: {times} times, lost by a fault {caused} times")


def _rows(database: Path, sql: str) -> list[Any]:
    with looking_at(database) as db:
        return db.execute(sql).fetchall()


# ---------------------------------------------------------------- times


def _judge_times(verdict: Verdict, evidence: Evidence, histories: Mapping[str, History]) -> None:
    by_worker: defaultdict[str, list[str]] = defaultdict(list)
    for run, history in histories.items():
        for worker in {tenure.worker for tenure in history.tenures}:
            by_worker[worker].append(run)
    for fault in evidence.faults:
        if fault.kind == "lock":
            continue
        for run in by_worker[fault.worker]:
            if _is_hit(histories[run], fault):
                verdict.gaps.append(_gap(run, histories[run], fault, evidence))
    verdict.hits = len(verdict.gaps)
    last = max([fault.until for fault in evidence.faults] + [evidence.nearly_over])
    verdict.drain = (evidence.over - last) / 1e6 - overlap(evidence.late, last, evidence.over)


def _is_hit(history: History, fault: Fault) -> bool:
    """Whether the worker had the run in its hands, and did not end it before the fault took effect."""
    return any(
        tenure.worker == fault.worker and tenure.since <= fault.since < tenure.until for tenure in history.tenures
    )


def _gap(run: str, history: History, fault: Fault, evidence: Evidence) -> Gap:
    """From the fault to the next progress; or to the claim of a new holder, if another fault hit that before it made
    any.
    """
    until = _recovered(history, fault, evidence.faults)
    blocked = _blocked(evidence.faults, but=fault)
    whole = (until - fault.at) / 1e6
    stopped = overlap(blocked, fault.at, until)
    excused = overlap([*within(evidence.late, fault.at, until), *blocked], fault.at, until)
    return Gap(fault, run, whole, excused - stopped, whole - excused)


def _recovered(history: History, fault: Fault, faults: Sequence[Fault]) -> float:
    progress = sorted(history.progress)
    after = bisect_right(progress, fault.since)
    until = progress[after] if after < len(progress) else math.inf
    for tenure in history.tenures:
        if fault.since < tenure.since < until and tenure.taken and not tenure.progress and _was_hit(tenure, faults):
            return tenure.since
    return until


def _was_hit(tenure: Tenure, faults: Iterable[Fault]) -> bool:
    return any(
        (fault.worker == tenure.worker or fault.blocks) and fault.at < tenure.until and fault.until > tenure.since
        for fault in faults
    )


def _blocked(faults: Iterable[Fault], *, but: Fault) -> list[Span]:
    """When a stopped worker held the write lock. Its own stop is in its own bound."""
    return [(fault.at, fault.until) for fault in faults if fault.blocks and (fault != but)]
