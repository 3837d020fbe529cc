"""What a session keeps beside its runs: values under keys, and messages in order."""

from __future__ import annotations

from typing import Final, NamedTuple

from stepwell.domain.outcome import Payload

MESSAGES: Final = "messages"
"""The key under which `session.changed` and `session.read` tell of messages; values cannot have it."""


class SessionWrite(NamedTuple):
    """A value to be kept. With `expected`, only if the key's version is still that one (0: there is no value yet).

    `step` is the place of the call.
    """

    session: str
    key: str
    value: Payload
    step: str | None
    expected: int | None = None


class SessionMessage(NamedTuple):
    """A message to be added. `text` is a JSON text."""

    session: str
    role: str
    text: Payload
    step: str | None


class SessionValue(NamedTuple):
    """A value as kept. `version` grows by one with every write."""

    version: int
    value: Payload


class MessageRecord(NamedTuple):
    """A message as kept; `number` counts the session's messages from 1."""

    number: int
    role: str
    text: Payload
    run_id: str | None
    at: int


class SessionRecord(NamedTuple):
    """A session as kept: it exists from its first run on."""

    id: str
    tenant: str
    created_at: int
    updated_at: int
    messages: int = 0
    keys: tuple[str, ...] = ()
