"""The context an agent is handed: each verb takes its place in the order, and leaves the work to the step runner, the
waits or the attempt.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

from stepwell.domain import event, values
from stepwell.domain.event import Draft, to_datetime
from stepwell.engine.attempt import Attempt
from stepwell.engine.checks import check_text
from stepwell.engine.replay import NOW, Call
from stepwell.engine.session_verbs import SessionVerbs
from stepwell.engine.state_verbs import StateVerbs
from stepwell.engine.step_verbs import StepVerbs
from stepwell.engine.streaming import StreamVerbs
from stepwell.engine.wait_verbs import WaitVerbs
from stepwell.ports.context import AnyLog, RunInfo

if TYPE_CHECKING:
    from stepwell.ports.runnable import Runnable

_logger = logging.getLogger("stepwell.run")


class RunContext(WaitVerbs, StepVerbs, StateVerbs, SessionVerbs, StreamVerbs):
    """`stepwell.Context` over one attempt. `runnables` are the agents that it can call."""

    def __init__(self, attempt: Attempt, runnables: Mapping[str, Runnable]) -> None:
        StateVerbs.__init__(self, attempt)
        StepVerbs.__init__(self, attempt)
        WaitVerbs.__init__(self, attempt, runnables)
        SessionVerbs.__init__(self, attempt, isolated=runnables[attempt.record.agent].session_mode == "isolated")
        self._log: AnyLog | None = None

    # ------------------------------------------------------------ facts

    @property
    def run(self) -> RunInfo:
        return self._attempt.info

    @property
    def deps(self) -> Any:
        return self._attempt.deps

    @property
    def attempt(self) -> int:
        return self._attempt.record.life.attempt

    @property
    def log(self) -> AnyLog:
        if self._log is None:
            self._log = _RunLog(_logger, self._attempt)
        return self._log

    @property
    def _origin(self) -> str:
        """What is drawn in a run depends on: a retry draws what the run drew that it retries."""
        return self._attempt.record.origin or self._attempt.record.id

    @property
    def random(self) -> Random:
        scope = self._scope("random")
        self._attempt.touch()
        if scope.random is None:
            scope.random = Random(f"{self._origin} {scope.path}")
        return scope.random

    def uuid(self) -> UUID:
        scope = self._scope("uuid")
        self._attempt.touch()
        scope.uuids += 1
        drawn = hashlib.blake2b(f"{self._origin} {scope.path} {scope.uuids}".encode(), digest_size=16)
        bits = int.from_bytes(drawn.digest(), "big")
        return UUID(int=bits & ~(0xF << 76) & ~(3 << 62) | 8 << 76 | 2 << 62)

    @property
    def cancelled(self) -> bool:
        return self._attempt.cancelling

    def now(self) -> datetime:
        scope = self._scope("now")
        place = scope.next_place()
        record = self._attempt.recall(Call(event.TIME_READ, place, NOW, ""))
        if record is not None:
            return to_datetime(record.facts()["value"])
        now = self._attempt.clock.now()
        self._attempt.note(Draft(event.TIME_READ, f'{{"value":{now}}}', place), scope.path)
        return to_datetime(now)

    def patched(self, id: str, /) -> bool:
        scope = self._scope("patched")
        self._attempt.touch()
        known = self._attempt.replay.patches.get(id)
        if known is None:
            check_text(id, "the id of a patch")
            known = not self._attempt.replay.behind(scope.path, scope.position)
            self._attempt.replay.patches[id] = known
            self._attempt.note(Draft(event.PATCH_MARKED, values.dumps({"id": id, "active": known})), scope.path)
        return known


class _RunLog(logging.LoggerAdapter[logging.Logger]):
    """Carries the run's id, and is quiet while the agent repeats what is remembered."""

    def __init__(self, logger: logging.Logger, attempt: Attempt) -> None:
        super().__init__(logger, {"run_id": attempt.record.id})
        self._attempt = attempt

    def isEnabledFor(self, level: int) -> bool:
        return not self._attempt.replaying and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**(self.extra or {}), **kwargs.get("extra", {})}}
