"""What the writer remembers from one transaction to the next, so that writing on reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stepwell.domain.run import RUNNING
from stepwell.stores.sqlite.put_off import PutOff
from stepwell.stores.sqlite.rows import Row

_MOST_KEPT: Final = 20_000


class Recall:
    """What the writer knows of the file between transactions: valid until another connection commits.

    SQLite's own page cache rests on the same counter (`PRAGMA data_version`), so a row kept here is the locked row,
    not a belief about it. `rows` holds running runs by id. `clear` holds agents for which nothing waits, not even for
    its time, while nobody but the worker that asked holds runs: nothing can be ahead of a new run of theirs until a run
    becomes claimable. `changes` numbers the changes of sessions.

    `queued` is how many runs are queued: counted once and followed from then on. What others insert is added, what
    they take is not seen, so `guessed` says that it may be less; `last_run` is the highest number of a run at that
    time. `put_off` says whether a clock that was set back may have put runs off.
    """

    def __init__(self) -> None:
        self.changes = 0
        self.rows: dict[str, Row] = {}
        self.clear: set[tuple[str, str]] = set()
        self.queued = 0
        self.counted_at: int | None = None
        self.guessed = False
        self.last_run = 0
        self.put_off = PutOff()

    def forget_rows(self) -> None:
        """Something else changed the file."""
        self.rows.clear()
        self.clear.clear()
        self.guessed = True

    def forget(self) -> None:
        """A transaction failed half-way."""
        self.forget_rows()
        self.counted_at = None
        self.put_off.forget()

    def keep(self, changed: Mapping[str, Row]) -> None:
        """After a commit: keep what will be written again soon, drop the rest."""
        for run_id, row in changed.items():
            if row.life.status != RUNNING:
                self.rows.pop(run_id, None)
        if len(self.rows) > _MOST_KEPT:
            self.rows.clear()
