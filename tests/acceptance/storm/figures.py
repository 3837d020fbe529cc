"""The figures of a storm, for the page about reliability."""

from __future__ import annotations

import warnings
from typing import Final

from scripts.figures import Count, Figures, Measure, keep, machine
from tests.acceptance.storm.storm import WORKERS
from tests.acceptance.storm.verdict import DRAIN_LEASES, MORE_FILES, MOST_LATE_TO_JUDGE, SLACK, Verdict
from tests.acceptance.storm.weather import STOP_LEASES

LATE: Final = "the machine came late"
"""How a warning begins that a storm's times were not judged."""


def keep_figures(verdict: Verdict, calm: Verdict | None, seed: int) -> None:
    """Tell what a storm came to, and warn when no time was judged; keep that of a long one where figures are kept."""
    figures = figures_of(verdict, calm, seed)
    print(f"\n{figures.size}")
    for count in figures.counts:
        print(f"  {count.what}: {count.found} of {count.n} {count.of}")
    for measure in figures.measures:
        print(f"  {measure.what}: {measure.value:g} {measure.unit}")
    print(f"  {figures.machine}")
    if not verdict.times_are_judged:
        warnings.warn(f"{LATE} for {verdict.late_share:.0%} of {figures.name}: no time was judged", stacklevel=2)
    if calm is not None:
        keep(figures)


def figures_of(verdict: Verdict, calm: Verdict | None, seed: int) -> Figures:
    """What a storm came to. `calm` is the same without faults."""
    profile, faults = verdict.profile, sum(verdict.faults.values())
    kinds = verdict.faults
    size = (
        f"{verdict.accepted:,} runs with {verdict.commits:,} steps, {WORKERS} workers, lease {profile.lease:g} s,"
        f" seed {seed}; {faults:,} faults in {verdict.seconds:.0f} s: {kinds['kill']:,} workers killed,"
        f" {kinds['stop']:,} stopped for {STOP_LEASES:g} leases ({verdict.blocking:,} of them in the middle of a"
        f" write), the write lock held by a stranger {kinds['lock']:,} times. {verdict.hits:,} times a run was hit"
    )
    if not verdict.times_are_judged:
        size += f". The machine was late for {verdict.late_share:.0%} of it: no bound of time was judged"
    return Figures(
        name=profile.name,
        command="make storm" + (" STORM=release" if profile.name == "storm-release" else ""),
        size=size,
        counts=_counts(verdict, faults),
        measures=_measures(verdict, calm),
        machine=machine(),
    )


def _counts(verdict: Verdict, faults: int) -> tuple[Count, ...]:
    accepted, commits = verdict.accepted, verdict.commits
    writes = commits + verdict.ends
    order = len(verdict.disorder) + len(verdict.audit.gaps) + len(verdict.audit.ends_not_once)
    return (
        Count("accepted runs lost or never ended, by faults", len(verdict.lost), faults, "faults"),
        Count("accepted runs lost or never ended, by runs", len(verdict.lost), accepted, "runs"),
        Count("keys that made two runs", len(verdict.two_runs), accepted, "keys"),
        Count("steps committed twice", len(verdict.double_commits), commits, "commits"),
        Count("writes accepted from a worker that had lost its run", len(verdict.zombie_writes), writes, "writes"),
        Count("runs with steps out of order, gaps in their events or two ends", order, accepted, "runs"),
        Count("committed steps without their effect", len(verdict.missing_effects), commits, "commits"),
        Count("effects repeated where no fault explains it", len(verdict.uncaused_duplicates), commits, "commits"),
        Count("runs taken from a worker that no fault had hit", len(verdict.robbed), verdict.takings, "takings"),
        Count("facts of the journal changed or removed", len(verdict.rewrites), writes, "writes"),
        Count("runs given up as dead", len(verdict.wrong_dead), accepted, "runs"),
    )


def _measures(verdict: Verdict, calm: Verdict | None) -> tuple[Measure, ...]:
    lease = verdict.profile.lease
    faults = sum(verdict.faults.values())
    before, after = verdict.before, verdict.after
    judged, unjudged = verdict.times_are_judged, verdict.unjudged

    def bound(seconds: float) -> float | None:
        return seconds if judged else None

    found = [
        Measure("effects repeated, all explained by a fault", verdict.duplicates, "", faults),
        Measure(
            "longest time without progress of a run after a kill",
            _s(verdict.longest("kill")),
            "s",
            bound(lease + SLACK),
        ),
        Measure(
            "the same after a stop, the stop included",
            _s(verdict.longest("stop")),
            "s",
            bound(lease + SLACK + STOP_LEASES * lease),
        ),
        Measure("from the last fault until every run has ended", _s(verdict.drain), "s", bound(DRAIN_LEASES * lease)),
        Measure("not counted above: time in which the machine itself came late", _s(verdict.stall), "s"),
        Measure(
            "most that it came late: of the storm, or of the times without progress",
            round(100 * verdict.late_share, 1),
            "%",
            100 * MOST_LATE_TO_JUDGE,
        ),
        Measure("times without progress that were not judged, because it was late for most of them", len(unjudged)),
        Measure("not counted above: time in which a stopped worker held the write lock", _s(verdict.blocked), "s"),
        Measure("files that the longest-lived worker opened and has kept", after.files - before.files, "", MORE_FILES),
        Measure("asyncio tasks that it began and has kept", after.tasks - before.tasks, "", 0),
        Measure("its memory, more than at the beginning", round(100 * (after.memory / before.memory - 1), 1), "%", 20),
        Measure("steps per second", round(verdict.steps_per_second)),
    ]
    if calm is not None:
        ratio = 100 * verdict.steps_per_second / calm.steps_per_second
        found.append(Measure("steps per second, of those without any fault", round(ratio), "%"))
    return tuple(found)


def _s(seconds: float) -> float:
    return round(seconds, 2)
