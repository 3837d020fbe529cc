"""`stepwell doctor`: where everything is and where that comes from, whether the store is sound, and what waits for
nobody.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from stepwell.cli.commands import json_option, store_option
from stepwell.cli.failures import OK, UNAVAILABLE, UNSUCCESSFUL, exit_code
from stepwell.cli.reading import is_there, opened
from stepwell.cli.records import page
from stepwell.cli.terminal import DONE, FAILED, fields, mark, moment, short, show, size, status_text
from stepwell.cli.waits import lane_name
from stepwell.config import find_app, find_store, store_file
from stepwell.domain.errors import NotFound, StepwellError
from stepwell.domain.event import to_datetime
from stepwell.domain.run import RUNNING, SUSPECT_AFTER

if TYPE_CHECKING:
    from stepwell.config import Setting
    from stepwell.runtime import LaneInfo, Run, StoreReport, WorkerInfo

_MOST: Final = 1000
_CURE: Final = "start a worker, or: stepwell run TARGET --continue"


@dataclass
class Findings:
    """What was found, in the order in which it is shown; `code` is the exit code of the worst problem."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, str | None]] = field(default_factory=list)
    code: int = OK

    def add(self, name: str, value: str) -> None:
        """A fact."""
        self.facts.append((name, value))

    def trouble(self, problem: str, code: int, cure: str | None = None) -> None:
        """Something that should be otherwise, and what to do about it."""
        self.problems.append((problem, cure))
        self.code = self.code or code


@click.command(short_help="Check the store, the settings and the machine.")
@json_option
@store_option
def doctor(as_json: bool, store: str | None) -> int:
    """Where app and store are and why there, whether the store is sound, and runs that nobody serves.

    Changes nothing. Ends with 0 when all is well.
    """
    findings = Findings()
    _look_at_machine(findings)
    _look_at_app(findings)
    _look_at_store(findings, store)
    if as_json:
        facts = dict(findings.facts)
        problems = ["; ".join(filter(None, problem)) for problem in findings.problems]
        show(page({"ok": not problems, "facts": facts, "problems": problems}))
        return findings.code
    for line in fields(findings.facts):
        show(line)
    show()
    for problem, cure in findings.problems:
        show(f"{mark(FAILED)} {problem}")
        if cure:
            show(f"  {cure}")
    if not findings.problems:
        show(f"{mark(DONE)} nothing wrong")
    return findings.code


def _look_at_machine(findings: Findings) -> None:
    from importlib.metadata import PackageNotFoundError, version

    import apsw

    try:
        own = version("stepwell")
    except PackageNotFoundError:
        own = "not installed"
    findings.add("stepwell", own)
    findings.add("python", f"{sys.version.split()[0]}, {sys.executable}")
    findings.add("sqlite", f"{apsw.sqlite_lib_version()}, apsw {apsw.apsw_version()}")


def _look_at_app(findings: Findings) -> None:
    try:
        app = find_app()
        findings.add("app", f"{app.value}  ({app.source})")
    except NotFound:
        findings.add("app", "none: a target names it, or STEPWELL_APP, or [tool.stepwell]")
    except StepwellError as error:
        findings.trouble(error.message, exit_code(error), error.hint)


# ---------------------------------------------------------------- the store


def _look_at_store(findings: Findings, store: str | None) -> None:
    try:
        setting = find_store(store)
        findings.add("store", f"{setting.value}  ({setting.source})")
        file = store_file(setting.value)
        if file is not None and not is_there(file):
            findings.add("", "not there yet: the first `stepwell run` makes it")
            return
        if file is not None:
            _look_at_file(findings, file)
        seen = asyncio.run(_ask(setting))
    except StepwellError as error:
        findings.trouble(error.message, exit_code(error), error.hint)
        return
    _look_at_report(findings, seen.report)
    _look_at_lines(findings, seen)
    _look_at_workers(findings, seen.report, seen.workers)


class Seen(NamedTuple):
    """What a store showed: facts about itself, its workers, its lanes, how many runs are on the list of the dead, and
    those that are executed with care because their workers died.
    """

    report: StoreReport
    workers: list[WorkerInfo]
    lanes: list[LaneInfo]
    dead: int
    suspects: list[Run[Any]]


async def _ask(setting: Setting) -> Seen:
    async with opened(setting.value) as runtime:
        running = await runtime.runs.list(status=RUNNING, limit=_MOST)
        return Seen(
            await runtime.report(),
            await runtime.workers.list(),
            await runtime.queues.list(),
            len(await runtime.runs.list(dead=True, limit=_MOST)),
            [run for run in running if run.losses >= SUSPECT_AFTER],
        )


def _look_at_lines(findings: Findings, seen: Seen) -> None:
    for lane in seen.lanes:
        if lane.waiting:
            findings.add(
                "in line", f"{_runs(lane.waiting)} for {lane_name(lane)}, {lane.taken} of {lane.capacity} taken"
            )
    if seen.dead:
        many = f"{_MOST} or more runs" if seen.dead == _MOST else _runs(seen.dead)
        findings.add("dead", f"{many}; see: stepwell runs list --dead")
    for run in seen.suspects:
        lost = f"its worker died {run.losses} times in a row without progress; it is executed alone"
        findings.add("suspect", f"run {short(run.id)} of {run.agent}: {lost}")


def _look_at_file(findings: Findings, file: Path) -> None:
    try:
        mode, folder_mode = file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777
    except OSError as error:
        findings.trouble(f"{file} cannot be looked at: {error.strerror}", UNAVAILABLE)
        return
    findings.add("access", f"file {mode:04o}, folder {folder_mode:04o}")
    if not os.access(file, os.W_OK):
        findings.trouble(f"{file} cannot be written by this user", UNAVAILABLE)


def _look_at_report(findings: Findings, report: StoreReport) -> None:
    findings.add("engine", report.version)
    findings.add("schema", str(report.schema))
    findings.add("size", size(report.size_bytes))
    counted = [f"{count} {status_text(status)}" for status, count in report.runs.items() if count]
    findings.add("runs", ", ".join(counted) or "none")
    for problem in report.problems:
        findings.trouble(problem, UNAVAILABLE)


def _look_at_workers(findings: Findings, report: StoreReport, workers: list[WorkerInfo]) -> None:
    shown = [_worker_line(worker) for worker in workers]
    findings.add("workers", "\n".join(shown) or "none alive")
    for agent, count in report.unserved.items():
        findings.trouble(f"{_runs(count)} of {agent}: due, and nobody takes them up", UNSUCCESSFUL, _CURE)
    for lane, agent, count in report.blockages:
        waiting = f"{_runs(lane.waiting)} in line for {lane_name(lane)}"
        findings.trouble(
            f"{waiting}: kept from it by {_runs(count)} of {agent} that nobody serves", UNSUCCESSFUL, _CURE
        )
    orphans = report.runs.get(RUNNING, 0) - sum(worker.running for worker in workers)
    if orphans > 0:
        findings.trouble(f"{_runs(orphans)}: begun by a process that is gone", UNSUCCESSFUL, _CURE)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _worker_line(worker: WorkerInfo) -> str:
    since = moment(to_datetime(worker.started_at))
    busy = f"{worker.running} of {worker.capacity} busy"
    return f"{short(worker.id)} pid {worker.pid} on {worker.host}, {busy}, since {since}"
