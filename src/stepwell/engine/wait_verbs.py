"""The verbs that wait: for time, signals, people and other agents."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stepwell.domain.errors import InvalidInput, Seconds
from stepwell.domain.event import to_micros
from stepwell.domain.ids import NAME
from stepwell.domain.retry import micros
from stepwell.domain.values import quote
from stepwell.engine.attempt import Attempt
from stepwell.engine.calls import Calls
from stepwell.engine.checks import check_text, checked_key, json_data
from stepwell.engine.children import Children, Mode
from stepwell.engine.replay import keyed_step
from stepwell.engine.waiting import NOT_GIVEN, Waiting
from stepwell.engine.waits import Limit
from stepwell.ports.child import ChildResult, ChildRun

if TYPE_CHECKING:
    from stepwell.engine.scope import Scope
    from stepwell.ports.runnable import Runnable


class WaitVerbs(Calls):
    """`ctx.sleep`, `ctx.wait_for`, `ctx.ask`, `ctx.call` and `ctx.spawn`."""

    def __init__(self, attempt: Attempt, runnables: Mapping[str, Runnable]) -> None:
        Calls.__init__(self, attempt)
        self._waiting = Waiting(attempt)
        self._children = Children(attempt, self._waiting, runnables)

    async def sleep(self, duration: Seconds, /) -> None:
        delay = micros(duration, what="ctx.sleep")
        await self._sleep(self._attempt.waits.lasting(delay))

    async def sleep_until(self, when: datetime, /) -> None:
        if not isinstance(when, datetime) or when.tzinfo is None:
            raise InvalidInput(
                f"ctx.sleep_until takes an aware datetime, not {quote(when)}",
                code="input.datetime",
                hint="give it a time zone: datetime(..., tzinfo=UTC), or start from ctx.now()",
            )
        await self._sleep(Limit(to_micros(when)))

    async def _sleep(self, limit: Limit) -> None:
        await self._open()
        scope = self._scope("sleep")
        await self._whole("sleep", self._waiting.sleep(scope.next_place(), scope.path, limit))

    async def wait_for(
        self, name: str, type: Any = Any, /, *, timeout: Seconds | None = None, default: Any = NOT_GIVEN
    ) -> Any:
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            raise InvalidInput(f"{quote(name)} cannot name a signal", code="input.signal")
        limit = None if timeout is None else micros(timeout, what="timeout")
        await self._open()
        scope = self._scope("wait_for")
        waiting = self._waiting.signal(scope.next_place(), name, type, join=scope.join, timeout=limit, default=default)
        return await self._whole("wait_for", waiting)

    async def ask(
        self,
        question: str,
        type: Any,
        /,
        *,
        details: Any = None,
        key: str | None = None,
        assignee: str | None = None,
        timeout: Seconds | None = None,
        default: Any = NOT_GIVEN,
        release: bool = False,
    ) -> Any:
        check_text(question, "the question")
        if assignee is not None:
            check_text(assignee, "assignee")
        limit = None if timeout is None else micros(timeout, what="timeout")
        await self._open()
        scope = self._scope_of("ask", key)
        asking = self._waiting.question(
            self._place("ctx.ask", key, scope),
            question,
            type,
            details=json_data(details, "details"),
            assignee=assignee,
            keyed=key is not None,
            join=None if scope is None else scope.join,
            timeout=limit,
            default=default,
            release=release,
        )
        return await self._whole_of("ask", scope, asking)

    # ------------------------------------------------------------ other agents

    async def call(
        self, agent: Any, input: Any = None, /, *, key: str | None = None, session: str | None = None
    ) -> Any:
        await self._open()
        scope = self._scope_of("call", key)
        place = self._place("ctx.call", key, scope)
        join = None if scope is None else scope.join
        return await self._whole_of("call", scope, self._call(place, agent, input, key, session, join))

    async def _call(
        self, place: str, agent: Any, value: Any, key: str | None, session: str | None, join: str | None
    ) -> Any:
        child = await self._children.start(
            place, agent, value, mode="call", session=session, keyed=key is not None, join=join
        )
        return await self._children.output(agent, child)

    async def spawn(
        self,
        agent: Any,
        input: Any = None,
        /,
        *,
        key: str | None = None,
        session: str | None = None,
        detach: bool = False,
    ) -> ChildRun[Any]:
        await self._open()
        scope = self._scope_of("spawn", key)
        place = self._place("ctx.spawn", key, scope)
        mode: Mode = "detach" if detach else "spawn"
        starting = self._children.start(
            place, agent, input, mode=mode, session=session, keyed=key is not None, join=None
        )
        return Child(self, agent, await self._whole_of("spawn", scope, starting))

    async def join_child(self, agent: Any, child: str) -> ChildResult[Any]:
        """Wait for a spawned child: the work of `Child.result`."""
        await self._open()
        scope = self._scope("result")
        joined = self._children.joined(scope.next_place(), scope.path, agent, child, join=scope.join)
        return await self._whole("result", joined)

    # ------------------------------------------------------------ places

    def _place(self, verb: str, key: str | None, scope: Scope | None) -> str:
        if key is not None:
            return keyed_step(verb, checked_key(key, verb))
        assert scope is not None
        return scope.next_place()

    async def _whole_of(self, verb: str, scope: Scope | None, doing: Coroutine[Any, Any, Any]) -> Any:
        """A call with a key in a task of its own may be cut short: what it began is found under the key."""
        return await (doing if scope is None else self._whole(verb, doing))


class Child:
    """A child that goes on beside its parent."""

    __slots__ = ("_agent", "_calls", "id")

    def __init__(self, calls: WaitVerbs, agent: Any, child: str) -> None:
        self._calls = calls
        self._agent = agent
        self.id = child

    def __repr__(self) -> str:
        return f"<child {self.id}>"

    async def result(self) -> ChildResult[Any]:
        return await self._calls.join_child(self._agent, self.id)


BARE = frozenset(
    method.__code__
    for method in (WaitVerbs.sleep, WaitVerbs.sleep_until, WaitVerbs.wait_for, WaitVerbs.ask, WaitVerbs.call)
) | {Child.result.__code__}
"""A branch of `gather` that is nothing but one of these has nothing to do once its wait is over: such waits wake the
run together.
"""
