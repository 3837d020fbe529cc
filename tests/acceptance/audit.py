"""Reads a store's file after the storm, past all of Stepwell's code, and says which promises it breaks."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

AUDIT_TRIGGER = """
create table if not exists storm_audit(run text, step text, number int, written int, granted int, ended int);
create table if not exists storm_ends(run text, kind text, written int, granted int, ended int);
create table if not exists storm_rewrites(run text, seq int, kind text, how text);
create trigger if not exists storm_audit_step after insert on journal when new.kind = 'step.completed' begin
  insert into storm_audit select id, new.step, new.data ->> '$.result.step', new.data ->> '$.result.fence',
    (select data ->> '$.fence' from journal where run = new.run and seq < new.seq
     and kind in ('run.started', 'run.resumed') order by seq desc limit 1),
    ended_at is not null
  from run where n = new.run;
end;
create trigger if not exists storm_audit_end after insert on journal when new.kind in
    ('run.succeeded', 'run.failed', 'run.cancelled', 'run.timed_out', 'run.exhausted') begin
  insert into storm_ends select id, new.kind, new.data ->> '$.output.fence',
    (select data ->> '$.fence' from journal where run = new.run and seq < new.seq
     and kind in ('run.started', 'run.resumed') order by seq desc limit 1),
    exists (select 1 from journal where run = new.run and seq < new.seq and kind in
      ('run.succeeded', 'run.failed', 'run.cancelled', 'run.timed_out', 'run.exhausted'))
  from run where n = new.run;
end;
create trigger if not exists storm_audit_update after update on journal begin
  insert into storm_rewrites select id, old.seq, old.kind, 'changed' from run where n = old.run;
end;
create trigger if not exists storm_audit_delete after delete on journal begin
  insert into storm_rewrites select id, old.seq, old.kind, 'removed' from run where n = old.run;
end;
"""
"""Keeps every step and every end of a run that the store accepts in tables of its own, whatever becomes of the rows of
the journal: a step with its number; both with the fence of the attempt that wrote it, which steps and agents of a storm
tell in their results, with the fence with which the run was last given to a worker, and whether the run had ended
before. And it notes every row of the journal that was changed or removed: none ever is.
"""


@dataclass
class Audit:
    """What a store holds, counted. Every list of offenders is empty in a store that keeps its promises."""

    runs: int = 0
    by_status: dict[str, int] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)
    double_commits: list[tuple[str, str]] = field(default_factory=list)
    ends_not_once: list[str] = field(default_factory=list)
    status_without_event: list[str] = field(default_factory=list)
    steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    integrity: str = ""

    @property
    def faults(self) -> list[object]:
        """All that is wrong."""
        found: list[object] = [*self.gaps, *self.double_commits, *self.ends_not_once, *self.status_without_event]
        return found if self.integrity == "ok" else [*found, self.integrity]


ENDS = {"run.succeeded", "run.failed", "run.cancelled", "run.timed_out", "run.exhausted"}


def audit(database: Path) -> Audit:
    """Check every run of the file against its journal."""
    db = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    result = Audit(integrity=_one(db, "pragma integrity_check"))
    for n, run, status, seq in db.execute("select n, id, status, seq from run"):
        result.runs += 1
        result.by_status[status] = result.by_status.get(status, 0) + 1
        rows = list(db.execute("select seq, kind, step from journal where run = ? order by seq", (n,)))
        if [row[0] for row in rows] != list(range(1, seq + 1)):
            result.gaps.append(f"{run}: {[row[0] for row in rows]} with seq {seq}")
        completed = Counter(row[2] for row in rows if row[1] == "step.completed")
        result.double_commits += [(run, step) for step, times in completed.items() if times > 1]
        result.steps.update({(run, step): times for step, times in completed.items()})
        ends = [row[1] for row in rows if row[1] in ENDS]
        if len(ends) > 1:
            result.ends_not_once.append(f"{run}: {ends}")
        if (f"run.{status}" in ENDS) != bool(ends) or (ends and ends[0] != f"run.{status}"):
            result.status_without_event.append(f"{run}: {status} with {ends}")
    db.close()
    return result


def output_of(database: Path, run: str) -> Any:
    """What a run returned, as its journal has it."""
    db = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    text = _one(
        db, "select data from journal where run = (select n from run where id = ?) and kind = 'run.succeeded'", (run,)
    )
    db.close()
    return json.loads(text)["output"]


def _one(db: apsw.Connection, sql: str, values: tuple[str, ...] = ()) -> str:
    rows = list(db.execute(sql, values))
    return str(rows[0][0]) if rows else ""
