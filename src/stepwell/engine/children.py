"""Children: runs that a run starts in its own commit, and whose ends it finds in its own journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from stepwell.domain import event
from stepwell.domain.errors import Misuse, NotFound, RunFailed, StepFailed, StoreError
from stepwell.domain.event import Draft
from stepwell.domain.ids import RUN, SESSION, derived_id, own_session
from stepwell.domain.outcome import ErrorInfo
from stepwell.domain.submission import SESSION_LANE, Lane, Submission
from stepwell.domain.values import digest, dumps, loads
from stepwell.domain.wait import CHILD, Wait
from stepwell.engine.failure import placed
from stepwell.engine.inputs import checked_session, input_text
from stepwell.engine.replay import Call, Record, step_call
from stepwell.ports.child import ChildResult
from stepwell.ports.crash_point import CrashPoint

if TYPE_CHECKING:
    from stepwell.domain.event import Entry
    from stepwell.domain.run import RunRecord
    from stepwell.engine.attempt import Attempt
    from stepwell.engine.waiting import Waiting
    from stepwell.ports.runnable import Runnable

Mode: TypeAlias = Literal["call", "spawn", "detach"]

MAX_DEPTH: Final = 8
_started = CrashPoint("child.after_start")


class Children:
    """Starts and joins the children of one attempt."""

    def __init__(self, attempt: Attempt, waiting: Waiting, runnables: Mapping[str, Runnable]) -> None:
        self._attempt = attempt
        self._waiting = waiting
        self._runnables = runnables

    async def start(
        self, place: str, agent: Any, value: Any, *, mode: Mode, session: str | None, keyed: bool, join: str | None
    ) -> str:
        """The id of the child at this place: started now, or before. A child that was refused stays refused."""
        runnable = self._runnable(agent)
        text = input_text(runnable, value)
        call = step_call(place, runnable.name, digest([loads(text), mode, session]), None, keyed=keyed)
        async with self._waiting.one_by_one(place, keyed):
            record = self._attempt.recall(call)
            if record is None:
                return await self._submit(call, runnable, text, mode=mode, session=session, join=join)
        if record.awaits is None:
            raise _refused(place, runnable.name, record)
        return record.awaits

    async def _submit(
        self, call: Call, runnable: Runnable, text: str, *, mode: Mode, session: str | None, join: str | None
    ) -> str:
        self._attempt.before_acting()
        name = self._attempt.record.session if session is None else checked_session(session)
        lanes = await self._lanes(runnable, text, mode, name)
        await self._check_bounds(call)
        child = self._child_at(call.step)
        self._attempt.replay.live_children.add(child)  # before anything else is awaited: others are about to start, too
        submission = await self._submission(child, call.step, runnable, text, mode, name, lanes)
        facts = {"child": child, "agent": call.name, "mode": mode, "digest": call.digest}
        waits = (Wait(child, CHILD, child, call.step, None, join),) if mode == "call" else ()
        await self._write(call, event.CHILD_STARTED, dumps(facts), submits=(submission,), opens=waits)
        _started()
        if self._attempt.on_child is not None:
            self._attempt.on_child(child)
        return child

    async def _write(self, call: Call, kind: str, facts: str, **more: Any) -> None:
        """What has a key is known from now on, and written whatever becomes of the calling task."""
        told = Draft(kind, facts, call.step)
        if call.keyed:
            self._attempt.replay.learn(call.step, told)
        await self._attempt.commit(told, apart=call.keyed, **more)

    def _child_at(self, place: str) -> str:
        parent = self._attempt.record
        return derived_id(RUN, parent.id, place, str(parent.life.attempt), str(parent.life.fence))

    async def _submission(
        self,
        child: str,
        place: str,
        runnable: Runnable,
        text: str,
        mode: Mode,
        name: str,
        lanes: tuple[Lane, ...],
    ) -> Submission:
        parent = self._attempt.record
        now = self._attempt.clock.now()
        return Submission(
            id=child,
            agent=runnable.name,
            version=runnable.version,
            session=name,
            input=await self._attempt.payload(text),
            input_digest="",
            available_at=now,
            created_at=now,
            timeout=runnable.timeout,
            tenant=parent.tenant,
            trigger=parent.trigger,
            priority=parent.priority,
            causal_depth=parent.causal_depth,
            parent=parent.id,
            parent_step=place,
            root=parent.root or parent.id,
            depth=parent.depth + 1,
            detached=int(mode == "detach"),
            hooked=int(runnable.hooked),
            lanes=lanes,
        )

    async def _lanes(self, runnable: Runnable, text: str, mode: Mode, session: str) -> tuple[Lane, ...]:
        """The lanes of a child. In a session whose turn its parent has, or a run that waits for it, it is part of that
        turn, if the store finds that they have it: it would else wait for those who wait for it.

        A turn in another session may not be waited for while one is held: two runs that cross would do so for ever.
        """
        lanes = runnable.lanes(text, session)
        if mode == "detach" or not lanes or lanes[0].kind != SESSION_LANE:
            return lanes
        turns = await self._turns()
        if session in turns:
            return lanes
        crossing = session.startswith(SESSION)  # it may be another run's own, whose turn that run has until it ends
        held = [name for name, run in turns.items() if crossing or name != own_session(run)]
        if held:
            raise Misuse(
                f"a run that has its turn in session {held[0]} would wait for one in session {session}; "
                "two runs that do so crosswise would wait for ever",
                code="child.session",
                hint="call it in the same session, or from an agent that is not synchronized, or spawn it detached",
            )
        return lanes

    async def _turns(self) -> dict[str, str]:
        """The sessions in which this run has its turn, or one that waits for it; and which run that is."""
        turns: dict[str, str] = {}
        run = self._attempt.record
        while True:
            if self._mode_of(run.agent) == "synchronized":
                turns[run.session] = run.id
            if run.parent is None or run.detached:
                return turns
            run = await self._run(run.parent)

    async def _run(self, run_id: str) -> RunRecord:
        """A run of this family. When the store does not answer, the attempt ends: the agent must not decide on that."""
        try:
            return await self._attempt.store.get(run_id, tenant=self._attempt.record.tenant)
        except StoreError as error:
            raise self._attempt.unwritable(error) from error

    def _mode_of(self, agent: str) -> str:
        """How runs of an agent meet in their session. One that this worker does not know is taken to have its turn."""
        runnable = self._runnables.get(agent)
        return "synchronized" if runnable is None else runnable.session_mode

    async def _check_bounds(self, call: Call) -> None:
        """Refuse what would grow without end. The refusal is remembered: a later attempt must not see it otherwise."""
        error = None
        most = self._runnables[self._attempt.record.agent].max_children
        if self._attempt.record.depth >= MAX_DEPTH:
            error = ErrorInfo("child.depth", f"runs are nested {MAX_DEPTH} deep already")
        elif len(self._attempt.replay.live_children) >= most:
            error = ErrorInfo("child.limit", f"the run has {most} live children already, which is its limit")
        if error is not None:
            facts = f'{{"name":{dumps(call.name)},"digest":"{call.digest}","error":{error.text()},"try":1}}'
            await self._write(call, event.STEP_FAILED, facts)
            raise _failed(call.step, call.name, error)

    def _runnable(self, agent: Any) -> Runnable:
        name = agent if isinstance(agent, str) else getattr(agent, "name", None)
        runnable = self._runnables.get(name) if isinstance(name, str) else None
        if runnable is None:
            known = ", ".join(self._runnables)
            raise NotFound(
                f"no agent {name or agent!r:.80} is served by this worker",
                code="agent.unknown",
                hint=f"give the worker its app, too; known agents: {known}",
            )
        return runnable

    # ------------------------------------------------------------ what becomes of them

    async def output(self, agent: Any, child: str) -> Any:
        """What a called child returned. Raises `RunFailed` when it did not succeed."""
        return (await self.result(agent, child, await self._waiting.child_end(child))).output

    async def result(self, agent: Any, child: str, entry: Entry) -> ChildResult[Any]:
        """How a child ended, from the fact that tells it."""
        facts = json.loads(entry.data)
        error = facts.get("error")
        output = None
        if "output" in facts or "ref" in facts:
            text = await self._attempt.read_payload(facts, "output", child)
            output = self._runnable(agent).decode_output(text)
        info = None if error is None else ErrorInfo(error["code"], error["message"], error["retryable"])
        return _Ended(child, facts["status"], output, info, place=entry.step)

    async def joined(self, place: str, scope: str, agent: Any, child: str, *, join: str | None) -> ChildResult[Any]:
        """How a spawned child ended, once it has."""
        if child not in self._attempt.replay.arrived:
            await self._refuse_own_turn(child)
        entry = await self._waiting.child(place, scope, child, join=join)
        return await self.result(agent, child, entry)

    async def _refuse_own_turn(self, child: str) -> None:
        """A detached child stands in line for a turn: nobody may wait for it who has that turn."""
        run = await self._run(child)
        if run.parent != self._attempt.record.id:
            raise Misuse(
                f"the detached child {child} was started by the run that this one retries, and tells its end to that",
                code="child.foreign",
                hint="wait for it outside: runtime.runs.get(id), then result()",
            )
        if run.detached and self._mode_of(run.agent) == "synchronized" and run.session in await self._turns():
            raise Misuse(
                f"the detached child {child} waits for the turn in session {run.session}, which this run has",
                code="child.session",
                hint="spawn it without detach=True, so that it is part of the turn, or do not wait for it",
            )


class _Ended(ChildResult[Any]):
    """A child's end whose failure names the call that started it: another attempt makes that child anew."""

    __slots__ = ("_place",)

    def __init__(self, child: str, status: str, output: Any, error: ErrorInfo | None, *, place: str | None) -> None:
        super().__init__(child, status, output, error)
        self._place = place

    @property
    def output(self) -> Any:
        try:
            return super().output
        except RunFailed as error:
            if self._place is None:
                raise
            raise placed(error, self._place) from None


def _refused(place: str, agent: str, record: Record) -> StepFailed:
    error = record.facts()["error"]
    return _failed(place, agent, ErrorInfo(error["code"], error["message"], error["retryable"]))


def _failed(place: str, agent: str, error: ErrorInfo) -> StepFailed:
    return StepFailed(
        f"child {agent} was not started: {error.message}", step=place, error_type=error.code, code=error.code
    )
