"""What a change of one run does to others: its end closes its waits, tells its parent and cancels its children, a pause
and a resumption go down to its descendants, and the tickets that it gives back go to others.

Carried out for a whole batch at once, when its operations are applied: each round takes a few statements, and there are
as many rounds as generations. Runs without ties never come here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from stepwell.domain import event, transitions
from stepwell.domain.event import Draft
from stepwell.domain.run import PAUSED, Lifecycle
from stepwell.domain.wait import CHILD, CHILD_ENDED, RUN_ENDED
from stepwell.stores.sqlite.batch import Batch, Tied, Visit
from stepwell.stores.sqlite.lanes import give_back
from stepwell.stores.sqlite.rows import HAS_CHILDREN, HAS_LANES, HAS_PARENT, HAS_WAITS, Row, whole_row
from stepwell.stores.sqlite.statements import sql
from stepwell.stores.sqlite.waits import Waits

_CHILDREN: Final = sql(
    "SELECT json_group_array(json_array({run})) FROM ("
    " SELECT run.* FROM json_each(?) AS made CROSS JOIN run INDEXED BY run_family"
    " ON run.parent = made.value AND run.ended_at IS NULL ORDER BY run.n)"
)
_DESCENDANTS: Final = sql(
    """
    WITH RECURSIVE family (top, number, name) AS (
        SELECT value, NULL, value FROM json_each(?)
        UNION ALL
        SELECT top, run.n, run.id FROM family CROSS JOIN run INDEXED BY run_family ON run.parent = family.name
    )
    SELECT json_group_array(json_array(top, {run})) FROM family CROSS JOIN run ON run.n = number
    WHERE ended_at IS NULL
    """
)


def settle(batch: Batch) -> None:
    """Carry out what the changes of this batch mean for other runs."""
    moved: list[tuple[Row, Lifecycle]] = []
    while batch.tied or batch.spreading:
        changes, batch.tied = batch.tied, []
        moved += [(tied.row, tied.before) for tied in changes if tied.row.ties & HAS_LANES]
        batch.save()  # so that what this batch has written is found
        ended = [tied for tied in changes if tied.change.life.ended and not tied.before.ended]
        if ended:
            _end(batch, ended)
        if batch.spreading:
            _spread(batch)
    if moved:
        give_back(batch, moved)


# ---------------------------------------------------------------- ends


def _end(batch: Batch, ended: Sequence[Tied]) -> None:
    rows = [tied.row for tied in ended]
    _load(batch, rows)
    for tied in ended:
        _close_waits(batch, tied.row)
        if tied.row.ties & HAS_PARENT:
            _tell_parent(batch, tied.row, _end_of(tied))
    parents = [row.id for row in rows if row.ties & HAS_CHILDREN]
    if parents:
        for child in batch.adopt(map(whole_row, batch.fetch(_CHILDREN, parents))):
            _cancel(batch, child)


def _load(batch: Batch, ended: Iterable[Row]) -> None:
    """Everything of these runs, their parents, and the open waits of both."""
    for row in ended:
        batch.want_run(row.id)
    batch.load()
    parents = [row.parent for row in ended if row.ties & HAS_PARENT and row.parent is not None]
    for parent in parents:
        batch.want_life(parent)
    batch.load()
    concerned = [*ended, *(row for row in map(batch.find, parents) if row is not None)]
    for row in concerned:
        if row.ties & HAS_WAITS:
            batch.part(Waits).want_open(row.id)
    batch.load()


def _close_waits(batch: Batch, row: Row) -> None:
    if row.ties & HAS_WAITS:
        waits = batch.part(Waits)
        for record in waits.open_of(row.id):
            waits.close(record.wait.id, RUN_ENDED)


def _tell_parent(batch: Batch, row: Row, end: Draft) -> None:
    parent = batch.find(row.parent or "")
    if parent is None:
        return
    waits = batch.part(Waits)
    closed = None if parent.life.ended else waits.first_for(parent.id, CHILD, row.id)
    wakes = False
    while closed is not None:
        wakes |= waits.wakes(parent.id, waits.close(closed.wait.id, CHILD_ENDED).wait)
        closed = waits.first_for(parent.id, CHILD, row.id)
    change = transitions.child_ended(parent.life, row.record, end, now=batch.now, wakes=wakes)
    if change is not None:
        (batch.append if change.life is parent.life else batch.change)(parent, change)


def _end_of(tied: Tied) -> Draft:
    """The fact that told the end."""
    return next(draft for draft in tied.change.drafts if draft.kind in event.ENDS)


def _cancel(batch: Batch, row: Row) -> None:
    run = row.record
    if not run.detached:
        change, _ = transitions.cancel(row.life, by="parent", reason=None, has_hook=bool(run.hooked), now=batch.now)
        if change is not None:
            batch.change(row, change)


# ---------------------------------------------------------------- what goes down to children


def pause(by: str) -> Visit:
    """Set a descendant aside."""

    def visit(batch: Batch, row: Row) -> None:
        change = transitions.pause(row.life, by=by, now=batch.now)
        if change is not None:
            batch.change(row, change)

    return visit


def resume(by: str) -> Visit:
    """Lift the hold of a descendant that is paused, or about to be."""

    def visit(batch: Batch, row: Row) -> None:
        if row.life.hold == PAUSED or row.life.pausing:
            batch.change(row, transitions.resume(row.life, by=by, drafts=(), verdict=None, now=batch.now))

    return visit


def _spread(batch: Batch) -> None:
    """Visit the live descendants of those runs, in the order of the generations."""
    spreading, batch.spreading = batch.spreading, []
    families: defaultdict[str, list[Row]] = defaultdict(list)
    for top, *columns in batch.fetch(_DESCENDANTS, list({row.id for row, _ in spreading})):
        families[top] += batch.adopt([whole_row(columns)])
    for row, visit in spreading:
        for descendant in families[row.id]:
            if not descendant.life.ended:
                visit(batch, descendant)
