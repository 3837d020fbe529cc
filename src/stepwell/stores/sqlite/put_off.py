"""Runs that a clock which was set back would put off: it was decided at a moment that has not come when they are due.
And those for which that was made up, while the clock has passed that moment again.

Finds them for a claim, which then makes up for it, or takes that back. That there can be none of the first kind is
known from the facts that were written since the last look, each of which is looked at once, and from the time of that
look.
"""

from __future__ import annotations

from typing import Final

import apsw

from stepwell.domain.outcome import NEVER
from stepwell.stores.sqlite.statements import sql

MOST_AT_ONCE: Final = 500

_PUT_OFF: Final = sql(
    """
    SELECT n FROM (SELECT n FROM run INDEXED BY run_claimable WHERE {claimable} AND {put_off} LIMIT ?2)
    UNION SELECT n FROM (SELECT n FROM run INDEXED BY run_gated WHERE {gated} AND {put_off} LIMIT ?2)
    """
).replace("{put_off}", f"available_at > ?1 AND available_at < {NEVER} AND timed_at - made_up > ?1")
# A run that found itself due and took its tickets stays due.
_BROUGHT_FORWARD: Final = (
    "SELECT n FROM run INDEXED BY run_made_up WHERE made_up > 0 AND status IN ('queued', 'waiting') AND hold IS NULL"
    " AND (blocked = 2 OR ties & 8 = 0) AND timed_at <= ?1"
)

PUT_OFF: Final = (
    sql("SELECT json_group_array(json_array({run})) FROM run WHERE n IN ({put_off} UNION SELECT n FROM ({forward}))")
    .replace("{put_off}", _PUT_OFF)
    .replace("{forward}", f"{_BROUGHT_FORWARD} LIMIT ?2")
)
_ANY: Final = f"SELECT EXISTS ({_PUT_OFF})"
_NEWS: Final = "SELECT max(at), max(position), EXISTS ({forward}) FROM journal WHERE position > ?2".replace(
    "{forward}", _BROUGHT_FORWARD
)
_LAST: Final = "SELECT coalesce(max(position), 0) FROM journal"


class PutOff:
    """Whether there may be such runs.

    `written_at` is no earlier than any moment at which it was decided when a run that waits is due, as far as the file
    was seen up to `position`; `None` when nothing is known.
    """

    def __init__(self) -> None:
        self._written_at: int | None = None
        self._position = 0

    def forget(self) -> None:
        """What was seen may not have come about."""
        self._written_at = None

    def is_possible(self, connection: apsw.Connection, now: int) -> bool:
        """Whether to look for them."""
        newest, position, brought_forward = connection.execute(_NEWS, (now, self._position)).get
        if brought_forward:
            return True
        if self._written_at is None:
            return self._is_there(connection, now)
        if newest is not None:
            self._written_at = max(self._written_at, newest)
            self._position = position
        if self._written_at > now:
            return True
        self._written_at = now  # what was made up elsewhere may have been taken back by now, of which no fact tells
        return False

    def _is_there(self, connection: apsw.Connection, now: int) -> bool:
        position = int(connection.execute(_LAST).get)
        if connection.execute(_ANY, (now, 1)).get:
            return True
        self._written_at, self._position = now, position
        return False

    def are_made_up(self, connection: apsw.Connection, now: int) -> None:
        """There are none any more."""
        self._written_at, self._position = now, int(connection.execute(_LAST).get)
