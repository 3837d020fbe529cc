"""What sessions keep, for those who look from outside: messages and values. Only runs write."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from stepwell.codec import codec_for
from stepwell.domain.errors import NotFound
from stepwell.domain.event import to_datetime
from stepwell.domain.ids import NAME
from stepwell.domain.outcome import Payload
from stepwell.domain.session import SessionRecord
from stepwell.domain.values import loads
from stepwell.ports.session import Message
from stepwell.ports.store import Store

T = TypeVar("T")


class StoredState:
    """The values of a session, each under its key."""

    def __init__(self, session_id: str, store: Store) -> None:
        self._session_id = session_id
        self._store = store

    async def get(self, key: str, type: type[T] = Any, *, default: Any = None) -> T:  # type: ignore[assignment]
        """The value as it is now, as `type` (default: plain data); `default` when there is none.

        Raises `InvalidValue` when it is of another type.
        """
        found = await self._store.session_value(self._session_id, key)
        if found is None:
            return default  # type: ignore[no-any-return]  # what the caller gave
        text = await _text(found.value, self._store)
        return codec_for(type).decode(text, f"session.state[{key!r}]")


class StoredSession:
    """A session as last read: what its runs keep together. `messages` and `state.get` read what is there now."""

    def __init__(self, record: SessionRecord, store: Store) -> None:
        self._record = record
        self._store = store
        self.state = StoredState(record.id, store)

    @property
    def id(self) -> str:
        """The session's name, or the id that was made for the run that has it alone."""
        return self._record.id

    @property
    def created_at(self) -> datetime:
        """When its first run was submitted, aware UTC."""
        return to_datetime(self._record.created_at)

    @property
    def updated_at(self) -> datetime:
        """When it changed last, aware UTC."""
        return to_datetime(self._record.updated_at)

    @property
    def message_count(self) -> int:
        """How many messages it has."""
        return self._record.messages

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys under which it keeps values."""
        return self._record.keys

    def __repr__(self) -> str:
        return f"<session {self.id}>"

    async def messages(self, *, last: int | None = None) -> builtins.list[Message]:
        """The conversation, oldest first; only the `last` ones where that is given."""
        found = await self._store.messages(self.id, last=last)
        return [Message(each.role, str(loads(await _text(each.text, self._store)))) for each in found]


class Sessions:
    """`runtime.sessions`."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store

    async def get(self, session_id: str, /) -> StoredSession:
        """The session of that name. Raises `NotFound` (`session.unknown`) when no run of it was ever submitted."""
        store = self._store()
        return StoredSession(await store.session(_named(session_id)), store)

    async def list(self, *, limit: int = 50) -> builtins.list[StoredSession]:
        """The sessions, the one that changed last first, at most `limit`; those that belong to a single run and keep
        nothing are left out.
        """
        store = self._store()
        return [StoredSession(record, store) for record in await store.sessions(limit=limit) if _is_named(record.id)]

    async def delete(self, session_id: str, /) -> None:
        """Forget what the session keeps; its runs stay. Raises `NotFound` (`session.unknown`), and `Conflict`
        (`session.busy`) while one of them has not ended.
        """
        await self._store().delete_session(_named(session_id))


def _is_named(session_id: str) -> bool:
    """What isolated runs keep for themselves has a name that no caller can give."""
    return NAME.fullmatch(session_id) is not None


def _named(session_id: str) -> str:
    if not _is_named(session_id):
        raise NotFound(
            f"there is no session {session_id!r:.80}", code="session.unknown", hint="see: stepwell sessions list"
        )
    return session_id


async def _text(payload: Payload, store: Store) -> str:
    if payload.text is not None:
        return payload.text
    assert payload.ref is not None
    return (await store.get_blob(payload.ref)).decode()
