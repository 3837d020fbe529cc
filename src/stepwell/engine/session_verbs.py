"""`ctx.session`: what the runs of a session share, read and written through the run's own journal.

What was read is remembered, so that a later attempt decides on the same; what is written is written once, in the commit
that records it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

from stepwell.codec import codec_for
from stepwell.domain import event, values
from stepwell.domain.errors import Conflict, InvalidInput, InvalidValue
from stepwell.domain.event import Draft
from stepwell.domain.outcome import Payload
from stepwell.domain.session import MESSAGES, SessionMessage, SessionValue, SessionWrite
from stepwell.engine.attempt import Attempt
from stepwell.engine.calls import Calls
from stepwell.engine.checks import check_text
from stepwell.engine.replay import Call, Diverged, Record
from stepwell.engine.waiting import NOT_GIVEN
from stepwell.ports.crash_point import CrashPoint
from stepwell.ports.session import Message

ISOLATED: Final = "~"
"""Begins the names under which isolated runs keep what is theirs: no session of a caller can have such a name."""
_LONGEST_KEY: Final = 200
_MAX_VALUE: Final = 256 * 1024
_ROLES: Final = ("user", "assistant")
_changed = CrashPoint("session.after_change")

_turns: WeakValueDictionary[tuple[int, str, str, str], asyncio.Lock] = WeakValueDictionary()
"""Updates of one value take turns inside a process, so that only other processes can come in between."""


class SessionVerbs(Calls):
    """The session of a run."""

    def __init__(self, attempt: Attempt, *, isolated: bool) -> None:
        Calls.__init__(self, attempt)
        self._isolated = isolated

    @property
    def session(self) -> RunSession:
        return RunSession(self, self._attempt, isolated=self._isolated)

    async def read_session(self, verb: str, key: str, last: int | None = None) -> tuple[str, Record | None]:
        """The place of a read, and what is remembered of it."""
        await self._open()
        place = self._scope(verb).next_place()
        return place, self._attempt.recall(Call(event.SESSION_READ, place, key, "" if last is None else str(last)))

    async def write_session(self, verb: str, key: str) -> tuple[str, bool]:
        """The place of a write, and whether it has been made."""
        await self._open()
        place = self._scope(verb).next_place()
        return place, self._attempt.recall(Call(event.SESSION_CHANGED, place, key, "")) is not None

    async def commit_session(self, verb: str, *drafts: Draft, **parts: Any) -> None:
        """Write, and let no other call follow when this one is cut short."""
        await self._whole(verb, self._attempt.commit(*drafts, **parts))
        _changed()

    def note_read(self, place: str, text: str) -> None:
        """Let what was read ride on the next commit."""
        self._attempt.note(Draft(event.SESSION_READ, text, place), self._scope("session").path)


class RunSession:
    """`ctx.session`. An isolated run sees only what it wrote itself."""

    def __init__(self, calls: SessionVerbs, attempt: Attempt, *, isolated: bool) -> None:
        record = attempt.record
        self._calls = calls
        self._attempt = attempt
        self._kept_as = f"{ISOLATED}{record.id}" if isolated else record.session
        self.id = record.session
        self.state = RunState(calls, attempt, self._kept_as)

    async def messages(self, *, last: int | None = None) -> list[Message]:
        if last is not None and (isinstance(last, bool) or not isinstance(last, int) or last < 1):
            raise InvalidInput(f"last={last!r} is not a whole number of at least 1", code="input.last")
        place, record = await self._calls.read_session("session.messages", MESSAGES, last)
        upto = None if record is None else int(record.facts()["version"])
        tenant = self._attempt.record.tenant
        kept = await self._calls.ask_store(
            self._attempt.store.messages(self._kept_as, last=last, upto=upto, tenant=tenant)
        )
        if record is None:
            facts: dict[str, Any] = {"key": MESSAGES, "version": kept[-1].number if kept else 0}
            self._calls.note_read(place, values.dumps(facts if last is None else facts | {"last": last}))
        return [Message(message.role, await self._text(message.text, place)) for message in kept]

    async def add(self, role: str, text: str) -> None:
        if role not in _ROLES:
            raise InvalidInput(f"role {role!r:.80} is none of {', '.join(_ROLES)}", code="input.role")
        check_text(text, "the message")
        payload = await self._attempt.payload(values.dumps(text))
        place, done = await self._calls.write_session("session.add", MESSAGES)
        if not done:
            said = SessionMessage(self._kept_as, role, payload, place)
            await self._calls.commit_session("session.add", messages=(said,))

    async def _text(self, payload: Payload, place: str) -> str:
        return str(json.loads(await _read(self._attempt, payload, place)))


class RunState:
    """`ctx.session.state`."""

    def __init__(self, calls: SessionVerbs, attempt: Attempt, kept_as: str) -> None:
        self._calls = calls
        self._attempt = attempt
        self._kept_as = kept_as

    async def get(self, key: str, type: Any = Any, *, default: Any = NOT_GIVEN) -> Any:
        _check_key(key)
        place, record = await self._calls.read_session("session.state.get", key)
        if record is None:
            kept = await self._kept(key)
            self._calls.note_read(place, _read_data(key, kept))
        else:
            kept = _kept_in(record)
        return await self._value(kept, key, place, type, default)

    async def set(self, key: str, value: Any) -> None:
        _check_key(key)
        text = _value_text(key, value)
        payload = await self._attempt.payload(text)
        place, done = await self._calls.write_session("session.state.set", key)
        if not done:
            write = SessionWrite(self._kept_as, key, payload, place)
            await self._calls.commit_session("session.state.set", writes=(write,))

    async def update(self, key: str, fn: Callable[[Any], Any], *, default: Any = None) -> Any:
        _check_key(key)
        verb = "session.state.update"
        read_at, record = await self._calls.read_session(verb, key)
        written_at, done = await self._calls.write_session(verb, key)
        if done:
            if record is None:
                raise self._attempt.diverged(Diverged(written_at, "a write", "an update without what it read"))
            return await self._value(_kept_in(record), key, read_at, Any, None)
        turn = _turns.setdefault(
            (id(self._attempt.store), self._attempt.record.tenant, self._kept_as, key), asyncio.Lock()
        )
        async with turn:
            while True:
                kept = await self._kept(key)
                text = _value_text(key, fn(await self._value(kept, key, read_at, Any, default)))
                payload = await self._attempt.payload(text)
                version = 0 if kept is None else kept.version
                write = SessionWrite(self._kept_as, key, payload, written_at, version)
                made = SessionValue(version + 1, payload)  # what a later attempt is given, without another call of fn
                read = Draft(event.SESSION_READ, _read_data(key, made), read_at)
                try:
                    await self._calls.commit_session(verb, read, writes=(write,))
                except Conflict:  # somebody wrote in between: on what they wrote, once more
                    continue
                return json.loads(text)

    async def _kept(self, key: str) -> SessionValue | None:
        asked = self._attempt.store.session_value(self._kept_as, key, tenant=self._attempt.record.tenant)
        return await self._calls.ask_store(asked)

    async def _value(self, kept: SessionValue | None, key: str, place: str, type: Any, default: Any) -> Any:
        if kept is None:
            return None if default is NOT_GIVEN else default
        text = await _read(self._attempt, kept.value, place)
        try:
            return codec_for(type).decode(text, f"session value {key}")
        except InvalidValue as error:
            raise InvalidInput(error.message, code="session.value", path=error.path, hint=error.hint) from None


async def _read(attempt: Attempt, payload: Payload, place: str) -> str:
    if payload.text is not None:
        return payload.text
    return await attempt.read_payload({"ref": {"blob": payload.ref}}, "value", place)


def _read_data(key: str, kept: SessionValue | None) -> str:
    if kept is None:
        return values.dumps({"key": key, "version": 0})
    return f"{values.dumps({'key': key, 'version': kept.version})[:-1]},{kept.value.field('value')}}}"


def _kept_in(record: Record) -> SessionValue | None:
    """What was read, from the fact that remembers it."""
    facts = record.facts()
    if facts["version"] == 0:
        return None
    blob = facts.get("ref")
    if blob is None:
        return SessionValue(facts["version"], Payload(values.dumps(facts["value"])))
    return SessionValue(facts["version"], Payload(None, blob["blob"], blob["size"]))


def _value_text(key: str, value: Any) -> str:
    text = codec_for(Any).encode(value, f"session value {key}")
    values.check_size(text, _MAX_VALUE, f"session value {key}")
    return text


def _check_key(key: str) -> None:
    check_text(key, "the key of a session value")
    if len(key) > _LONGEST_KEY or key == MESSAGES:
        raise InvalidInput(
            f"{key!r:.80} cannot be the key of a session value",
            code="input.session_key",
            hint=f"use a text of 1 to {_LONGEST_KEY} characters other than {MESSAGES!r}",
        )
