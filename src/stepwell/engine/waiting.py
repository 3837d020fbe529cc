"""The waiting verbs of a context: each opens its wait once, and gives what closed it, live and on every replay."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from stepwell.codec import Codec, codec_for, json_schema
from stepwell.domain import event, values
from stepwell.domain.errors import AskTimeout, InvalidInput, InvalidValue
from stepwell.domain.event import Draft
from stepwell.domain.ids import QUESTION as QUESTION_ID
from stepwell.domain.ids import make_id
from stepwell.domain.wait import CHILD, QUESTION, SIGNAL, TIME, Wait
from stepwell.engine.failure import placed
from stepwell.engine.replay import Record, wait_call
from stepwell.engine.waits import Limit, told_of, wait_data
from stepwell.ports.crash_point import CrashPoint

if TYPE_CHECKING:
    from stepwell.domain.event import Entry
    from stepwell.engine.attempt import Attempt

SLEEP: Final = "sleep"
_WAIT_ID: Final = "w_"
_opened = CrashPoint("wait.after_opening")
_expired = CrashPoint("wait.after_expiry")


class NotGiven:
    """Stands for a default that was not given: nothing that an agent could wait for."""


NOT_GIVEN: Final[Any] = NotGiven()


class Waiting:
    """Opens and awaits the waits of one attempt."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._made = 0
        self._with_key: dict[str, asyncio.Lock] = {}

    async def sleep(self, place: str, scope: str, limit: Limit) -> None:
        """Return when its moment has come. That of the first attempt counts."""
        record = self._attempt.recall(wait_call(place, TIME, SLEEP))
        if record is not None and record.final:
            return
        if record is None:
            data = wait_data(place, TIME, SLEEP, limit)
            if limit.until > self._attempt.clock.now():
                await self._attempt.commit(Draft(event.WAIT_OPENED, data, place))
                _opened()
            else:
                self._attempt.note(Draft(event.WAIT_OPENED, data, place), scope)
        else:
            data = _opening(record)
            limit = self._recorded(json.loads(data), record) or limit
        await self._attempt.waits.arrival(place, told_of(data), limit)
        closed = values.dumps({"wait": place, "outcome": "due"})
        self._attempt.note(Draft(event.WAIT_CLOSED, closed, place), scope)

    async def signal(
        self, place: str, name: str, type: Any, *, join: str | None, timeout: int | None, default: Any
    ) -> Any:
        """The value of the next signal of that name."""
        codec = codec_for(type)
        record = self._attempt.recall(wait_call(place, SIGNAL, name))
        if record is None:
            wait_id, limit = self._new_id(_WAIT_ID, place), self._limit(timeout)
            data = wait_data(wait_id, SIGNAL, name, limit)
            await self._open(Wait(wait_id, SIGNAL, name, place, _until(limit), join, data))
        else:
            data = _opening(record)
            limit = self._recorded(json.loads(data), record)
        entry = await self._closed(data, limit)
        facts = json.loads(entry.data)
        if facts["outcome"] != "received":
            return _defaulted(default, codec, place, f"no signal {name!r} came")
        sent = json.loads(self._attempt.replay.signals[facts["signal"]].data)
        return await self._value(sent, codec, place, f"the signal {name}", "signal.invalid")

    async def question(
        self,
        place: str,
        text: str,
        type: Any,
        *,
        details: Any,
        assignee: str | None,
        keyed: bool,
        join: str | None,
        timeout: int | None,
        default: Any,
        release: bool,
    ) -> Any:
        """The answer to a question."""
        codec = codec_for(type)
        schema = json_schema(type)
        asked = {"schema": schema, "details": details, "assignee": assignee}
        digest = values.digest({"text": text, **asked})
        async with self.one_by_one(place, keyed):
            record = self._attempt.recall(wait_call(place, QUESTION, text, digest, keyed=keyed))
            if record is None:
                wait_id, limit = self._new_id(QUESTION_ID, place), self._limit(timeout)
                data = wait_data(wait_id, QUESTION, text, limit, digest=digest, **asked)
                await self._open(Wait(wait_id, QUESTION, text, place, _until(limit), join, data), keyed=keyed)
            else:
                data = _opening(record)
                limit = self._recorded(json.loads(data), record)
        entry = await self._closed(data, limit, release=release)
        facts = json.loads(entry.data)
        if facts["outcome"] != "answered":
            return _defaulted(default, codec, place, f"nobody answered {values.quote(text)}")
        return await self._value(facts, codec, place, f"the answer to {values.quote(text)}", "answer.invalid")

    async def verdict(self, wait_id: str, text: str, schema: dict[str, Any], details: Any) -> Any:
        """The answer of a person about a step in doubt: a question beside the agent's own calls."""
        data = self._attempt.replay.asked.get(wait_id)
        if data is None:
            data = wait_data(wait_id, QUESTION, text, None, schema=schema, details=details)
            await self._open(Wait(wait_id, QUESTION, text, None, None, None, data))
            self._attempt.replay.asked[wait_id] = data
        entry = await self._closed(data, None)
        return json.loads(await self._attempt.read_payload(json.loads(entry.data), "value", wait_id))

    async def child(self, place: str, scope: str, child: str, *, join: str | None) -> Entry:
        """The end of a child that was started before."""
        if self._attempt.recall(wait_call(place, CHILD, child)) is None:
            wait_id = self._new_id(_WAIT_ID, place)
            told = Draft(event.WAIT_OPENED, wait_data(wait_id, CHILD, child, None), place)
            if child in self._attempt.replay.arrived:
                self._attempt.note(told, scope)
            else:  # a store opens no wait for a child that has ended, but the call itself is to be remembered
                await self._attempt.commit(told, opens=(Wait(wait_id, CHILD, child, place, None, join),))
                _opened()
        return await self.child_end(child)

    async def child_end(self, child: str) -> Entry:
        """The `child.ended` of a child that the run waits for."""
        entry = await self._attempt.waits.arrival(child, {"wait": child, "type": CHILD, "name": child}, None)
        assert entry is not None  # without a time limit only the end itself closes the wait
        return entry

    # ------------------------------------------------------------ opening and closing

    def one_by_one(self, place: str, keyed: bool) -> AbstractAsyncContextManager[object]:
        """A key may be used again, in other tasks too: what it stands for is begun once."""
        return self._with_key.setdefault(place, asyncio.Lock()) if keyed else nullcontext()

    async def _open(self, wait: Wait, *, keyed: bool = False) -> None:
        values.check_size(wait.data, 256 * 1024, f"what {wait.type} {values.quote(wait.name)} waits with")
        if keyed and wait.step is not None:
            self._attempt.replay.learn(wait.step, Draft(event.WAIT_OPENED, wait.data, wait.step))
        await self._attempt.commit(apart=keyed, opens=(wait,))
        _opened()

    async def _closed(self, data: str, limit: Limit | None, *, release: bool = False) -> Entry:
        """The fact that closed the wait, which may be that its time was over."""
        wait_id = json.loads(data)["wait"]
        waits = self._attempt.waits
        entry = await waits.arrival(wait_id, told_of(data), limit, release=release)
        if entry is None:
            await self._attempt.commit(expires=(wait_id,))
            _expired()
            entry = await waits.read(wait_id)
        return entry

    def _limit(self, timeout: int | None) -> Limit | None:
        return None if timeout is None else self._attempt.waits.lasting(timeout)

    def _recorded(self, facts: dict[str, Any], record: Record) -> Limit | None:
        """The limit of a wait that was opened with these facts by an earlier attempt. If it stands for a length, that
        counts from an earlier time that the journal bears since, as long as the clock has not passed that of the
        opening again: it was set back.
        """
        until, lasts = facts.get("until"), facts.get("lasts")
        if until is None or lasts is None:
            return None if until is None else Limit(until)
        made_up = max(0, record.at - self._attempt.replay.begun_at(record))
        return self._attempt.waits.recorded(until, lasts, decided_at=record.at, made_up=made_up)

    def _new_id(self, prefix: str, place: str) -> str:
        """An id that no other attempt gives, nor this one again: the lease, the place and a number decide it."""
        self._made += 1
        lease = self._attempt.lease
        drawn = hashlib.blake2b(f"{lease.run_id} {lease.fence} {place} {self._made}".encode(), digest_size=8)
        return make_id(prefix, self._attempt.clock.now(), drawn.digest())

    async def _value(self, facts: dict[str, Any], codec: Codec[Any], place: str, what: str, code: str) -> Any:
        text = await self._attempt.read_payload(facts, "value", place)
        try:
            return codec.accept(json.loads(text), what)  # it comes from outside, where fields have their aliases
        except (InvalidInput, InvalidValue) as error:  # so neither this program is at fault, nor an older one
            raise InvalidInput(error.message, code=code, path=error.path, hint=error.hint) from None


def _until(limit: Limit | None) -> int | None:
    return None if limit is None else limit.until


def _opening(record: Record) -> str:
    assert record.opening is not None
    return record.opening


def _defaulted(default: Any, codec: Codec[Any], place: str, why: str) -> Any:
    if default is NOT_GIVEN:
        error = AskTimeout(f"{why} in time", hint="give default= to go on without", retryable=True)
        raise placed(error, place)
    return codec.remember(default, "default")[1]
