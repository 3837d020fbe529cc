"""One round of claiming: end what is past a limit, take what was lost, then what is due. Made anew for each claim."""

from __future__ import annotations

from stepwell.domain import transitions
from stepwell.domain.lane import AWAY, FREE
from stepwell.domain.outcome import NEVER
from stepwell.domain.run import RUNNING, Lease, RunRecord
from stepwell.domain.transitions import Change, ClaimCause
from stepwell.ports.store import Claim, ClaimRequest
from stepwell.stores.memory.lanes import entering
from stepwell.stores.memory.queue import Place
from stepwell.stores.memory.runs import Kind, Row, is_suspect
from stepwell.stores.memory.writing import Tables, Writing


class Round:
    """What one claim does. `taken` are the runs that the worker gets, `left_suspects` says that it was spared some.

    Each part decides on what it finds; what ends in it has its consequences for others before the next part.
    """

    def __init__(self, tables: Tables, writing: Writing, request: ClaimRequest, *, elapsed: float) -> None:
        self.taken: list[Row] = []
        self.left_suspects = False
        self._runs = tables.runs
        self._lanes = tables.lanes
        self._workers = tables.workers
        self._writing = writing
        self._request = request
        self._now = writing.now
        self._elapsed = elapsed

    def take(self) -> None:
        """Take what the request says."""
        match self._request.suspects:
            case "any":
                self._take(suspects=(False, True), limit=self._request.limit)
            case "alone":
                self._take(suspects=(True,), limit=min(1, self._request.limit))
                if not self.taken:
                    self._take(suspects=(False,), limit=self._request.limit)
            case "skip":
                self._take(suspects=(False,), limit=self._request.limit)
        self.left_suspects = self._request.suspects != "any" and self._is_there((True,))

    def take_tickets(self) -> None:
        """Have every run whose time has come take the tickets that it needs, whoever serves it."""
        for row in entering(self._runs, self._now):
            self._lanes.enter(row.run.id)

    def end_overdue(self) -> None:
        """End every run past a limit, whoever serves it."""
        for row, limit in self._runs.overdue(self._now):
            self._writing.apply(row, transitions.time_out(row.run.life, limit, self._now))
        self._writing.settle()

    def make_up(self) -> None:
        """Have a clock that was set back put off no run, nor bring one forward once it is right, whoever serves it."""
        for row, life in self._runs.put_off(self._now):
            if life.made_up or row.gate == AWAY or not self._lanes.concern(row.run.id):  # who took tickets stays due
                self._writing.apply(row, Change(life, ()))
                self._lanes.place_again(row.run.id)
        self._writing.settle()

    def given(self) -> list[Claim]:
        """What the worker gets, as it stands now."""
        worker = self._request.worker
        return [Claim(row.run, Lease(row.run.id, row.run.life.fence, worker), list(row.journal)) for row in self.taken]

    def lost(self) -> list[tuple[Row, ClaimCause]]:
        """The runs that may be taken from whoever holds them, in the order of their submission."""
        found: list[tuple[Row, ClaimCause]] = []
        for worker_id in self._runs.holders():
            cause = self._workers.why_lost(worker_id, self._elapsed)
            if cause is not None:
                rows = map(self._runs.rows.__getitem__, self._runs.held_by(worker_id))
                found += [(row, cause) for row in rows if self._wanted(row.run)]
        return sorted(found, key=lambda item: item[0].run.id)

    def first_due(self, suspects: tuple[bool, ...] = (False, True)) -> Place | None:
        """Which of the wanted runs goes first among those that are due."""
        if self._request.only is None:
            return self._runs.first_due(self._kinds(suspects), self._now)
        due = (row for row in self._named() if row.gate == FREE and row.run.life.available_at <= self._now)
        return min((row.place for row in due if is_suspect(row.run.life) in suspects), default=None)

    def next_due_at(self) -> int | None:
        """When the next of the wanted runs becomes due by itself."""
        if self._request.only is None:
            kinds = self._kinds((False, True))
            return self._runs.next_due_at(kinds + [kind._replace(away=True) for kind in kinds], self._now)
        moments = (row.run.life.available_at for row in self._named())
        return min((at for at in moments if self._now < at < NEVER), default=None)

    def _take(self, *, suspects: tuple[bool, ...], limit: int) -> None:
        """Take runs whose worker is dead or whose lease ran out, then those whose time has come, by their place."""
        for row, cause in self.lost():
            if len(self.taken) < limit:
                self._take_lost(row, cause, suspects)
        self._writing.settle()
        while len(self.taken) < limit and (place := self.first_due(suspects)) is not None:
            row = self._runs.rows[place.run_id]
            self._hand_out(row, self._claim(row, "due"))

    def _take_lost(self, row: Row, cause: ClaimCause, suspects: tuple[bool, ...]) -> None:
        """Claim a run from its holder, unless that would execute one of the other kind. What ends by that is no
        suspect.
        """
        change = self._claim(row, cause)
        if change.life.status != RUNNING or is_suspect(change.life) in suspects:
            self._hand_out(row, change)

    def _hand_out(self, row: Row, change: Change) -> None:
        if self._writing.apply(row, change).life.status == RUNNING:
            self.taken.append(row)

    def _claim(self, row: Row, cause: ClaimCause) -> Change:
        return transitions.claim(row.run.life, worker=self._request.worker, cause=cause, now=self._now)

    def _is_there(self, suspects: tuple[bool, ...]) -> bool:
        """Whether a run of that kind could be taken."""
        lost = (self._claim(row, cause).life for row, cause in self.lost())
        return self.first_due(suspects) is not None or any(
            life.status == RUNNING and is_suspect(life) in suspects for life in lost
        )

    def _kinds(self, suspects: tuple[bool, ...]) -> list[Kind]:
        return [Kind(agent, suspect) for agent in self._request.agents for suspect in suspects]

    def _named(self) -> list[Row]:
        """Those of the runs that the request names that wait to be claimed."""
        rows = (self._runs.rows.get(run_id) for run_id in self._request.only or ())
        return [row for row in rows if row is not None and self._wanted(row.run) and row.line is not None]

    def _wanted(self, run: RunRecord) -> bool:
        only = self._request.only
        return run.agent in self._request.agents and (only is None or run.id in only)
