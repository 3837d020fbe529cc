"""One round of claiming: end what is past a limit, take what was lost, then what is due. Made anew for each claim."""

from __future__ import annotations

from stepwell.domain import transitions
from stepwell.domain.run import RUNNING, Lease, RunRecord
from stepwell.domain.transitions import ClaimCause
from stepwell.ports.store import Claim, ClaimRequest
from stepwell.stores.memory.queue import Place, claimable
from stepwell.stores.memory.runs import Row, Runs
from stepwell.stores.memory.workers import Workers


class Round:
    """What one claim does. `taken` is what the worker gets, `touched` names every run that was changed."""

    def __init__(self, runs: Runs, workers: Workers, request: ClaimRequest, *, now: int, elapsed: float) -> None:
        self.taken: list[Claim] = []
        self.touched: list[str] = []
        self._runs = runs
        self._workers = workers
        self._request = request
        self._now = now
        self._elapsed = elapsed

    def end_overdue(self) -> None:
        """End every run past a limit, whoever serves it."""
        for row, limit in self._runs.overdue(self._now):
            self._runs.apply(row, transitions.time_out(row.run.life, limit, self._now), self._now)
            self.touched.append(row.run.id)

    def take_lost(self) -> None:
        """Take runs whose worker is dead or whose lease ran out."""
        for row, cause in self.lost():
            if len(self.taken) == self._request.limit:
                break
            self._take(row, cause)

    def take_due(self) -> None:
        """Take runs whose time has come, by their place in the queue."""
        while len(self.taken) < self._request.limit and (place := self.first_due()) is not None:
            self._take(self._runs.rows[place.run_id], "due")

    def lost(self) -> list[tuple[Row, ClaimCause]]:
        """The runs that may be taken from whoever holds them, in the order of their submission."""
        found: list[tuple[Row, ClaimCause]] = []
        for worker_id in self._runs.holders():
            cause = self._workers.why_lost(worker_id, self._elapsed)
            if cause is not None:
                rows = map(self._runs.rows.__getitem__, self._runs.held_by(worker_id))
                found += [(row, cause) for row in rows if self._wanted(row.run)]
        return sorted(found, key=lambda item: item[0].run.id)

    def first_due(self) -> Place | None:
        """Which of the wanted runs goes first among those that are due."""
        if self._request.only is None:
            return self._runs.first_due(self._request.agents, self._now)
        return min((row.place for row in self._named() if row.run.life.available_at <= self._now), default=None)

    def next_due_at(self) -> int | None:
        """When the next of the wanted runs becomes due by itself."""
        if self._request.only is None:
            return self._runs.next_due_at(self._request.agents, self._now)
        moments = (row.run.life.available_at for row in self._named())
        return min((at for at in moments if at > self._now), default=None)

    def _take(self, row: Row, cause: ClaimCause) -> None:
        """Claim a run, which may also end it or set it aside."""
        change = transitions.claim(row.run.life, worker=self._request.worker, cause=cause, now=self._now)
        run = self._runs.apply(row, change, self._now)
        self.touched.append(run.id)
        if run.life.status == RUNNING:
            lease = Lease(run.id, run.life.fence, self._request.worker)
            self.taken.append(Claim(run, lease, list(row.journal)))

    def _named(self) -> list[Row]:
        """Those of the runs that the request names that wait to be claimed."""
        rows = (self._runs.rows.get(run_id) for run_id in self._request.only or ())
        return [row for row in rows if row is not None and self._wanted(row.run) and claimable(row.run.life)]

    def _wanted(self, run: RunRecord) -> bool:
        only = self._request.only
        return run.agent in self._request.agents and (only is None or run.id in only)
