"""What sessions keep: values with versions, and messages that are only ever added. One table for all tenants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stepwell.domain import event
from stepwell.domain.errors import Conflict, NotFound
from stepwell.domain.event import Draft
from stepwell.domain.ids import own_session
from stepwell.domain.run import RunRecord
from stepwell.domain.session import MESSAGES, MessageRecord, SessionMessage, SessionRecord, SessionValue, SessionWrite
from stepwell.domain.values import dumps


@dataclass(slots=True)
class _Session:
    """One session as stored. `named` says that somebody chose it, `order` counts the changes of all sessions."""

    id: str
    tenant: str
    named: bool
    created_at: int
    updated_at: int
    order: int
    values: dict[str, SessionValue] = field(default_factory=dict)
    messages: list[MessageRecord] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    @property
    def record(self) -> SessionRecord:
        return SessionRecord(
            self.id, self.tenant, self.created_at, self.updated_at, len(self.messages), tuple(sorted(self.values))
        )


class Sessions:
    """All sessions by tenant and id."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._changes = 0

    # ------------------------------------------------------------ changes

    def join(self, run: RunRecord, now: int) -> None:
        """A run of the session was made."""
        session = self._touched(run.tenant, run.session, now)
        session.named |= run.session != own_session(run.id) and run.parent is None
        session.runs.append(run.id)

    def check(self, tenant: str, writes: Sequence[SessionWrite]) -> None:
        """`Conflict` unless each value that is to be replaced is still the expected one."""
        versions: dict[tuple[str, str], int] = {}
        for write in writes:
            place = write.session, write.key
            version = versions.get(place, self._version(tenant, *place))
            if write.expected not in (None, version):
                raise Conflict(
                    f"{write.key!r} of the session {write.session} was changed: its version is {version}, "
                    f"not {write.expected}",
                    code="session.changed",
                    hint="read the value again and decide on what it is now",
                )
            versions[place] = version + 1

    def write(self, tenant: str, write: SessionWrite, now: int) -> Draft:
        """Keep a value, and give the fact that tells it."""
        session = self._touched(tenant, write.session, now)
        version = self._version(tenant, write.session, write.key) + 1
        session.values[write.key] = SessionValue(version, write.value)
        return _changed(write.key, version, write.step)

    def add(self, tenant: str, message: SessionMessage, run_id: str, now: int) -> Draft:
        """Keep a message, and give the fact that tells it."""
        session = self._touched(tenant, message.session, now)
        number = len(session.messages) + 1
        session.messages.append(MessageRecord(number, message.role, message.text, run_id, now))
        return _changed(MESSAGES, number, message.step)

    def forget(self, tenant: str, session_id: str) -> None:
        """Drop what the session keeps."""
        session = self._session(tenant, session_id)
        session.values.clear()
        session.messages.clear()

    # ------------------------------------------------------------ reading

    def value(self, tenant: str, session_id: str, key: str) -> SessionValue | None:
        """What is kept under a key."""
        session = self._sessions.get((tenant, session_id))
        return session.values.get(key) if session else None

    def messages(self, tenant: str, session_id: str, *, last: int | None, upto: int | None) -> list[MessageRecord]:
        """Of the messages numbered up to `upto`, the last ones."""
        session = self._sessions.get((tenant, session_id))
        messages = session.messages[:upto] if session else []
        return messages if last is None else messages[max(0, len(messages) - last) :]

    def runs(self, tenant: str, session_id: str) -> list[str]:
        """The runs of the session, oldest first. `NotFound`."""
        return self._session(tenant, session_id).runs

    def record(self, tenant: str, session_id: str) -> SessionRecord:
        """The session. `NotFound`."""
        return self._session(tenant, session_id).record

    def listed(self, tenant: str, limit: int) -> list[SessionRecord]:
        """The sessions that somebody chose or that keep something, the one that changed last first."""
        shown = (
            session
            for session in self._sessions.values()
            if session.tenant == tenant and (session.named or session.values or session.messages)
        )
        return [session.record for session in sorted(shown, key=lambda session: -session.order)[:limit]]

    # ------------------------------------------------------------ inside

    def _version(self, tenant: str, session_id: str, key: str) -> int:
        kept = self.value(tenant, session_id, key)
        return kept.version if kept else 0

    def _touched(self, tenant: str, session_id: str, now: int) -> _Session:
        self._changes += 1
        session = self._sessions.get((tenant, session_id))
        if session is None:
            session = _Session(session_id, tenant, False, now, now, self._changes)
            self._sessions[tenant, session_id] = session
        session.updated_at, session.order = now, self._changes
        return session

    def _session(self, tenant: str, session_id: str) -> _Session:
        try:
            return self._sessions[tenant, session_id]
        except KeyError:
            raise NotFound(
                f"there is no session {session_id}", code="session.unknown", hint="see: stepwell sessions list"
            ) from None


def _changed(key: str, version: int, step: str | None) -> Draft:
    return Draft(event.SESSION_CHANGED, dumps({"key": key, "version": version}), step)
