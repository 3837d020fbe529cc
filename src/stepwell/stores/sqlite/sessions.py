"""What sessions keep: values with versions, and messages that are only ever added.

`Sessions` holds what a batch is concerned with, for the writer thread; the functions below it are readers' questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import apsw

from stepwell.domain import event
from stepwell.domain.errors import Conflict, NotFound
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Payload
from stepwell.domain.session import MESSAGES, MessageRecord, SessionMessage, SessionRecord, SessionValue, SessionWrite
from stepwell.domain.values import dumps
from stepwell.stores.sqlite.batch import Batch, Part
from stepwell.stores.sqlite.rows import Row
from stepwell.stores.sqlite.statements import fetch, inserting, updating

_Session: TypeAlias = tuple[str, str]
"""Tenant and id."""

_VERSIONS: Final = (
    "SELECT json_group_array(json_array(tenant, session, v.key, version)) FROM session_value AS v"
    " WHERE (tenant, session, v.key) IN"
    " (SELECT asked.value ->> 0, asked.value ->> 1, asked.value ->> 2 FROM json_each(?) AS asked)"
)
_LAST_NUMBERS: Final = (
    "SELECT json_group_array(json_array(asked.value ->> 0, asked.value ->> 1, coalesce(("
    " SELECT max(number) FROM session_message AS m"
    " WHERE m.tenant = asked.value ->> 0 AND m.session = asked.value ->> 1), 0))) FROM json_each(?) AS asked"
)
_TOUCH: Final = inserting(
    "session",
    ("tenant", "id", "named", "created_at", "updated_at", "changed"),
    "ON CONFLICT (tenant, id) DO UPDATE SET named = max(named, excluded.named), updated_at = excluded.updated_at,"
    " changed = excluded.changed",
)
_JOIN: Final = updating("session", ("tenant", "id"), ("updated_at", "changed"))
_WRITE: Final = inserting(
    "session_value",
    ("tenant", "session", "key", "version", "value", "blob", "size", "run", "updated_at"),
    "ON CONFLICT (tenant, session, key) DO UPDATE SET version = excluded.version, value = excluded.value,"
    " blob = excluded.blob, size = excluded.size, run = excluded.run, updated_at = excluded.updated_at",
)
_ADD: Final = inserting(
    "session_message", ("tenant", "session", "number", "role", "value", "blob", "size", "run", "at")
)

_VALUE: Final = (
    "SELECT json_array(version, value, blob, size) FROM session_value WHERE tenant = ? AND session = ? AND key = ?"
)
_MESSAGES: Final = (
    "SELECT json_group_array(json_array(number, role, value, blob, size, run, at)) FROM ("
    " SELECT * FROM (SELECT * FROM session_message WHERE tenant = ? AND session = ? AND number <= ?"
    " ORDER BY number DESC LIMIT ?) ORDER BY number)"
)
_RECORD: Final = (
    "json_array(id, tenant, created_at, updated_at,"
    " (SELECT count(*) FROM session_message WHERE tenant = s.tenant AND session = s.id),"
    " json((SELECT json_group_array(key) FROM"
    " (SELECT key FROM session_value WHERE tenant = s.tenant AND session = s.id ORDER BY key))))"
)
_GET: Final = "SELECT {record} FROM session AS s WHERE tenant = ? AND id = ?".replace("{record}", _RECORD)
_GET_BY_RUNS: Final = (
    "SELECT json_array(?2, ?1, min(created_at), max(created_at), 0, json_array()) FROM run"
    " WHERE tenant = ?1 AND session = ?2 HAVING count(*) > 0"
)
_LIST: Final = (
    "SELECT json_group_array(json(record)) FROM (SELECT {record} AS record FROM session AS s"
    " WHERE tenant = ? AND (named OR EXISTS (SELECT 1 FROM session_value WHERE tenant = s.tenant AND session = s.id)"
    " OR EXISTS (SELECT 1 FROM session_message WHERE tenant = s.tenant AND session = s.id))"
    " ORDER BY changed DESC LIMIT ?)"
).replace("{record}", _RECORD)
_LIVE: Final = "SELECT id FROM run INDEXED BY run_session WHERE tenant = ? AND session = ? AND ended_at IS NULL LIMIT 1"
_FORGET: Final = (
    "DELETE FROM session_value WHERE tenant = ? AND session = ?",
    "DELETE FROM session_message WHERE tenant = ? AND session = ?",
)
_ALL: Final = 2**62


class Sessions(Part):
    """The sessions that a batch is concerned with."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self._versions: dict[tuple[str, str, str], int] = {}
        self._numbers: dict[_Session, int] = {}
        self._wanted: list[tuple[str, Sequence[SessionWrite], Sequence[SessionMessage]]] = []
        self._touched: dict[_Session, tuple[Any, ...]] = {}
        self._joined: dict[_Session, int] = {}
        self._values: dict[tuple[str, str, str], tuple[Any, ...]] = {}
        self._messages: list[Any] = []

    # ------------------------------------------------------------ loading

    def want(self, run_id: str, writes: Sequence[SessionWrite], messages: Sequence[SessionMessage]) -> None:
        """The run, which is asked for as a whole, will write this."""
        self._wanted.append((run_id, writes, messages))

    def load(self) -> None:
        keys: set[tuple[str, str, str]] = set()
        lists: set[_Session] = set()
        for run_id, writes, messages in self._wanted:
            row = self.batch.find(run_id)
            if row is not None:
                keys.update((row.tenant, write.session, write.key) for write in writes)
                lists.update((row.tenant, message.session) for message in messages)
        self._wanted.clear()
        if keys:
            for tenant, session, key, version in self.batch.fetch(_VERSIONS, list(keys)):
                self._versions[tenant, session, key] = version
        if lists:
            for tenant, session, number in self.batch.fetch(_LAST_NUMBERS, list(lists)):
                self._numbers[tenant, session] = number

    # ------------------------------------------------------------ changes

    def join(self, tenant: str, session: str, *, named: bool) -> None:
        """A run of a session that is not its own is made. A child's may be that of its parent: then nobody named it."""
        if named or (tenant, session) in self._touched:
            self._touch(tenant, session, self.batch.now, named=int(named))
        else:
            self._joined[tenant, session] = self.batch.next_change()

    def check(self, tenant: str, writes: Sequence[SessionWrite]) -> None:
        """`Conflict` unless each value that is to be replaced is still the expected one."""
        versions: dict[tuple[str, str, str], int] = {}
        for write in writes:
            place = tenant, write.session, write.key
            version = versions.get(place, self._versions.get(place, 0))
            if write.expected not in (None, version):
                raise Conflict(
                    f"{write.key!r} of the session {write.session} was changed: its version is {version}, "
                    f"not {write.expected}",
                    code="session.changed",
                    hint="read the value again and decide on what it is now",
                )
            versions[place] = version + 1

    def write(self, row: Row, write: SessionWrite) -> Draft:
        """Keep a value, and give the fact that tells it."""
        place = row.tenant, write.session, write.key
        version = self._versions[place] = self._versions.get(place, 0) + 1
        text, ref, size = write.value
        self._values[place] = (*place, version, text, ref, size, row.id, self.batch.now)
        self._touch_by(row, write.session)
        return _changed(write.key, version, write.step)

    def add(self, row: Row, message: SessionMessage) -> Draft:
        """Keep a message, and give the fact that tells it."""
        session = row.tenant, message.session
        number = self._numbers[session] = self._numbers.get(session, 0) + 1
        text, ref, size = message.text
        self._messages += (*session, number, message.role, text, ref, size, row.id, self.batch.now)
        self._touch_by(row, message.session)
        return _changed(MESSAGES, number, message.step)

    def save(self) -> None:
        joined: list[Any] = []
        for session, change in self._joined.items():
            joined += (*session, self.batch.now, change)
        self.batch.run(_JOIN, joined)
        self.batch.run(_TOUCH, [column for row in self._touched.values() for column in row])
        self.batch.run(_WRITE, [column for row in self._values.values() for column in row])
        self.batch.run(_ADD, self._messages)
        self._touched.clear()
        self._joined.clear()
        self._values.clear()
        self._messages = []

    def forget(self, tenant: str, session: str) -> None:
        """Drop what the session keeps. `Conflict` while one of its runs has not ended; `NotFound`."""
        self.batch.save()
        record(self.batch.connection, tenant, session)
        live = self.batch.connection.execute(_LIVE, (tenant, session)).get
        if live is not None:
            raise Conflict(
                f"the session {session} cannot be deleted while {live} has not ended",
                code="session.busy",
                hint="wait for its runs, or cancel them",
            )
        for statement in _FORGET:
            self.batch.connection.execute(statement, (tenant, session))
        self._versions = {place: version for place, version in self._versions.items() if place[:2] != (tenant, session)}
        self._numbers.pop((tenant, session), None)

    def _touch_by(self, row: Row, session: str) -> None:
        """A session without a name is a row once it keeps something, and as old as its run."""
        run = row.record
        self._touch(run.tenant, session, run.created_at if run.session == session else self.batch.now, named=0)

    def _touch(self, tenant: str, session: str, created_at: int, *, named: int) -> None:
        before = self._touched.get((tenant, session))
        named |= before[2] if before else 0
        self._touched[tenant, session] = (tenant, session, named, created_at, self.batch.now, self.batch.next_change())


# ---------------------------------------------------------------- what readers ask


def value(connection: apsw.Connection, tenant: str, session: str, key: str) -> SessionValue | None:
    """What the session keeps under a key."""
    found = fetch(connection, _VALUE, (tenant, session, key))
    return None if found is None else SessionValue(found[0], Payload._make(found[1:]))


def messages(
    connection: apsw.Connection, tenant: str, session: str, last: int | None, upto: int | None
) -> list[MessageRecord]:
    """Of the messages numbered up to `upto`, the last ones, in order."""
    bounds = _ALL if upto is None else upto, _ALL if last is None else last
    found = fetch(connection, _MESSAGES, (tenant, session, *bounds))
    return [
        MessageRecord(number, role, Payload(text, ref, size), run, at)
        for number, role, text, ref, size, run, at in found
    ]


def record(connection: apsw.Connection, tenant: str, session: str) -> SessionRecord:
    """The session, or `NotFound`: known by what it keeps, by its name, or by its runs alone."""
    found = fetch(connection, _GET, (tenant, session)) or fetch(connection, _GET_BY_RUNS, (tenant, session))
    if found is None:
        raise NotFound(f"there is no session {session}", code="session.unknown", hint="see: stepwell sessions list")
    return _record(found)


def listed(connection: apsw.Connection, tenant: str, limit: int) -> list[SessionRecord]:
    """The sessions that somebody chose or that keep something, the one that changed last first."""
    return [_record(found) for found in fetch(connection, _LIST, (tenant, limit))]


def _record(found: list[Any]) -> SessionRecord:
    session, tenant, created_at, updated_at, count, keys = found
    return SessionRecord(session, tenant, created_at, updated_at, count, tuple(keys))


def _changed(key: str, version: int, step: str | None) -> Draft:
    return Draft(event.SESSION_CHANGED, dumps({"key": key, "version": version}), step)
