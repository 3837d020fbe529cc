"""What runs wait for and what arrived for them: wait rows and signals, each found by what is asked of them.

Nothing here changes a run; `writing` does, in the same write.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterator
from typing import TypeVar

from stepwell.domain.errors import Busy, Conflict
from stepwell.domain.values import loads
from stepwell.domain.wait import MAX_SIGNALS, QUESTION, Signal, Wait, WaitRecord
from stepwell.ports.store import QuestionQuery

_Key = TypeVar("_Key", bound=Hashable)


class Waits:
    """Every wait that was ever opened, and which of them are open."""

    def __init__(self) -> None:
        self._records: dict[str, WaitRecord] = {}
        self._open: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
        self._open_of: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._joined: Counter[tuple[str, str]] = Counter()
        self._questions: dict[str, None] = {}

    def get(self, wait_id: str) -> WaitRecord | None:
        """The wait, open or closed."""
        return self._records.get(wait_id)

    def open(self, record: WaitRecord) -> None:
        """A new wait."""
        wait, run_id = record.wait, record.run_id
        self._records[wait.id] = record
        self._open[run_id, wait.type, wait.name][wait.id] = None
        self._open_of[run_id][wait.id] = None
        if wait.join is not None:
            self._joined[run_id, wait.join] += 1
        if wait.type == QUESTION:
            self._questions[wait.id] = None

    def close(self, wait_id: str, outcome: str, *, now: int, by: str | None = None) -> WaitRecord:
        """An open wait has come to its end."""
        record = self._records[wait_id]
        wait, run_id = record.wait, record.run_id
        closed = self._records[wait_id] = record._replace(outcome=outcome, closed_at=now, by=by)
        _take_out(self._open, (run_id, wait.type, wait.name), wait_id)
        _take_out(self._open_of, run_id, wait_id)
        if wait.join is not None:
            self._joined[run_id, wait.join] -= 1
        self._questions.pop(wait_id, None)
        return closed

    def wakes(self, record: WaitRecord) -> bool:
        """Whether the end of this wait wakes its run: no other is open that it is joined with."""
        return record.wait.join is None or not self._joined[record.run_id, record.wait.join]

    def open_for(self, run_id: str, kind: str, name: str) -> list[str]:
        """The open waits of a run for something of that name, oldest first."""
        return list(self._open.get((run_id, kind, name), ()))

    def open_of(self, run_id: str) -> list[str]:
        """All open waits of a run, oldest first."""
        return list(self._open_of.get(run_id, ()))

    def questions(self, query: QuestionQuery) -> list[WaitRecord]:
        """The open questions that match, oldest first."""
        matching = (record for record in self._open_questions() if _matches(record, query))
        return sorted(matching, key=lambda record: record.opened_at)[: query.limit]

    def _open_questions(self) -> Iterator[WaitRecord]:
        return map(self._records.__getitem__, self._questions)


class Signals:
    """The signals of all runs: each was received once, and is kept until a wait takes it."""

    def __init__(self) -> None:
        self._received: defaultdict[str, dict[str, Signal]] = defaultdict(dict)
        self._kept: defaultdict[str, defaultdict[str, deque[str]]] = defaultdict(lambda: defaultdict(deque))

    def is_known(self, run_id: str, signal: Signal) -> bool:
        """Whether it was received before. `Conflict` when that was another one under the same id."""
        earlier = self._received[run_id].get(signal.id)
        if earlier is None:
            return False
        if (earlier.name, earlier.value) != (signal.name, signal.value):
            raise Conflict(
                f"the signal {signal.id!r} was received before, with another name or value",
                code="signal.conflict",
                hint="give each signal an id of its own",
            )
        return True

    def receive(self, run_id: str, signal: Signal) -> None:
        """Note that it was received, and by that never is again."""
        self._received[run_id][signal.id] = signal

    def keep(self, run_id: str, signal: Signal) -> None:
        """Nobody waits for it yet. `Busy` when too many are kept."""
        kept = self._kept[run_id]
        if sum(map(len, kept.values())) >= MAX_SIGNALS:
            raise Busy(
                f"{MAX_SIGNALS} signals wait to be taken by {run_id}, which is the bound",
                code="signal.full",
                hint="send it again when the run has taken some",
            )
        kept[signal.name].append(signal.id)

    def take(self, run_id: str, name: str) -> str | None:
        """The id of the oldest signal of that name that nobody took."""
        kept = self._kept[run_id][name]
        return kept.popleft() if kept else None

    def forget_kept(self, run_id: str) -> None:
        """The run has ended: nothing takes what was kept for it."""
        self._kept.pop(run_id, None)


def _take_out(index: defaultdict[_Key, dict[str, None]], key: _Key, wait_id: str) -> None:
    del index[key][wait_id]
    if not index[key]:
        del index[key]


def _matches(record: WaitRecord, query: QuestionQuery) -> bool:
    return (
        record.tenant == query.tenant
        and (query.run_id is None or record.run_id == query.run_id)
        and (query.ending is None or record.wait.id.endswith(query.ending))
        and (query.assignee is None or _assignee(record.wait) == query.assignee)
    )


def _assignee(wait: Wait) -> object:
    data = loads(wait.data)
    return data.get("assignee") if isinstance(data, dict) else None
