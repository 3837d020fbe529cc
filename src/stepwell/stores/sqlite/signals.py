"""Signals in a batch: which were received, and which of them nobody has waited for yet. For the writer thread."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any, Final

from stepwell.domain.errors import Busy, Conflict
from stepwell.domain.ids import derived
from stepwell.domain.wait import MAX_SIGNALS, Signal
from stepwell.stores.sqlite.batch import Batch, Part
from stepwell.stores.sqlite.rows import Row
from stepwell.stores.sqlite.statements import inserting, updating

_KNOWN: Final = (
    "SELECT json_group_array(json_array(run.id, signal.id, signal.digest)) FROM json_each(?) AS sent"
    " CROSS JOIN run ON run.id = sent.value ->> 0"
    " CROSS JOIN signal ON signal.run = run.n AND signal.id = sent.value ->> 1"
)
_COUNTS: Final = (
    "SELECT json_group_array(json_array(run.id, ("
    " SELECT count(*) FROM signal INDEXED BY signal_kept WHERE signal.run = run.n AND taken_by IS NULL)))"
    " FROM json_each(?) AS named CROSS JOIN run ON run.id = named.value"
)
_KEPT: Final = (
    "SELECT json_group_array(json_array(run_id, name, id)) FROM ("
    " SELECT run.id AS run_id, signal.name, signal.id FROM json_each(?) AS wanted"
    " CROSS JOIN run ON run.id = wanted.value ->> 0"
    " CROSS JOIN signal INDEXED BY signal_kept"
    " ON signal.run = run.n AND signal.name = wanted.value ->> 1 AND signal.taken_by IS NULL"
    " ORDER BY signal.position)"
)
_INSERT: Final = inserting("signal", ("run", "id", "name", "digest", "received_at", "taken_by"))
_TAKE: Final = updating("signal", ("run", "id"), ("taken_by",))


class Signals(Part):
    """The signals that a batch is concerned with."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self._digests: dict[tuple[str, str], str] = {}
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._kept: defaultdict[tuple[str, str], deque[str]] = defaultdict(deque)
        self._sent: set[tuple[str, str]] = set()
        self._counted: set[str] = set()
        self._names: set[tuple[str, str]] = set()
        self._fresh: list[tuple[Row, Signal, str, str | None]] = []
        self._taken: list[tuple[str, str, str]] = []

    def want_room(self, run_id: str, signal_id: str) -> None:
        """It will be asked whether the run knows the signal, and whether it can keep another."""
        self._sent.add((run_id, signal_id))
        self._counted.add(run_id)

    def want_kept(self, run_id: str, name: str) -> None:
        """The signals of that name that the run keeps will be needed."""
        self._names.add((run_id, name))

    def load(self) -> None:
        if self._sent:
            for run_id, signal_id, digest in self.batch.fetch(_KNOWN, list(self._sent)):
                self._digests[run_id, signal_id] = digest
        if self._counted:
            self._counts.update(self.batch.fetch(_COUNTS, list(self._counted)))
        if self._names:
            for run_id, name, signal_id in self.batch.fetch(_KEPT, list(self._names)):
                self._kept[run_id, name].append(signal_id)
        for asked in (self._sent, self._counted, self._names):
            asked.clear()

    def is_known(self, run_id: str, signal: Signal) -> bool:
        """Whether it was received before. `Conflict` when that was another one under the same id."""
        digest = self._digests.get((run_id, signal.id))
        if digest is not None and digest != _digest(signal):
            raise Conflict(
                f"the signal {signal.id!r} was received before, with another name or value",
                code="signal.conflict",
                hint="give each signal an id of its own",
            )
        return digest is not None

    def check_room(self, run_id: str) -> None:
        """`Busy` when the run keeps too many."""
        if self._counts[run_id] >= MAX_SIGNALS:
            raise Busy(
                f"{MAX_SIGNALS} signals wait to be taken by {run_id}, which is the bound",
                code="signal.full",
                hint="send it again when the run has taken some",
            )

    def receive(self, row: Row, signal: Signal, taken_by: str | None) -> None:
        """Note that it was received; without a wait that takes it, it is kept."""
        digest = self._digests[row.id, signal.id] = _digest(signal)
        self._fresh.append((row, signal, digest, taken_by))
        if taken_by is None:
            self._counts[row.id] += 1
            self._kept[row.id, signal.name].append(signal.id)

    def kept(self, run_id: str, name: str) -> deque[str]:
        """The ids of the signals of that name that nobody took, oldest first."""
        return self._kept[run_id, name]

    def take(self, row: Row, name: str, taken_by: str) -> str:
        """The oldest kept signal of that name goes to a wait."""
        signal_id = self._kept[row.id, name].popleft()
        self._counts[row.id] -= 1
        self._taken.append((row.id, signal_id, taken_by))
        return signal_id

    def save(self) -> None:
        fresh: list[Any] = []
        for row, signal, digest, taken_by in self._fresh:
            fresh += (row.n, signal.id, signal.name, digest, self.batch.now, taken_by)
        self.batch.run(_INSERT, fresh)
        self._fresh.clear()
        taken: list[Any] = []
        for run_id, signal_id, taken_by in self._taken:
            taken += (self.batch.row(run_id).n, signal_id, taken_by)
        self.batch.run(_TAKE, taken)
        self._taken.clear()


def _digest(signal: Signal) -> str:
    return derived("", signal.name, signal.value.text or "", signal.value.ref or "")
