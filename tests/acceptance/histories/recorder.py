"""The log of a client: every call before it is made, every answer when it is there."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from stepwell import InvalidInput, StepwellError, StoreError
from stepwell.domain.event import Event
from stepwell.runtime.result import RunResult
from stepwell.runtime.run import Run
from tests.histories.history import FAIL, OK, UNKNOWN
from tests.histories.run_model import NOTHING_HAPPENED

T = TypeVar("T")

IMPATIENT: Final = 0.04
GIVEN_UP: Final = "given up"
"""In place of an error's code: the client did not wait any longer."""


class Log:
    """Lines in a file; what was written is there although the process is killed at once. Without a file it keeps
    them.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.lines: list[Mapping[str, Any]] = []
        self.numbers = count(1)
        self._fd = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def write(self, **line: Any) -> None:
        if self._fd is None:
            self.lines.append(json.loads(json.dumps(line)))
        else:
            os.write(self._fd, (json.dumps(line) + "\n").encode())


class Recorder:
    """One client. `ask` makes a call and records it; a call may be given up after a moment, or fail for no reason that
    tells whether anything happened: then its outcome is unknown.
    """

    def __init__(self, name: str, log: Log, chance: Random | None = None) -> None:
        self.name = name
        self.log = log
        self._chance = chance

    async def ask(
        self, verb: str, on: str, given: Mapping[str, Any], doing: Awaitable[T], told: Callable[[T], Any]
    ) -> T | None:
        """What the call gives; `None` when it failed or nothing is known."""
        number = next(self.log.numbers)
        whose = {"client": self.name, "n": number}
        self.log.write(**whose, at=time.monotonic_ns(), verb=verb, on=on, given=given)
        try:
            async with asyncio.timeout(self._patience()):
                answer = await doing
        except InvalidInput:
            raise
        except StepwellError as error:
            definite = not isinstance(error, StoreError | TimeoutError) or error.code in NOTHING_HAPPENED
            self.log.write(**whose, at=time.monotonic_ns(), outcome=FAIL if definite else UNKNOWN, value=error.code)
        except TimeoutError:
            self.log.write(**whose, at=time.monotonic_ns(), outcome=UNKNOWN, value=GIVEN_UP)
        else:
            at = time.monotonic_ns()
            self.log.write(**whose, at=at, outcome=OK, value=told(answer))
            return answer
        return None

    def _patience(self) -> float | None:
        if self._chance is None or self._chance.random() >= IMPATIENT:
            return None
        return self._chance.uniform(0, 0.004)


def snapshot(run: Run[Any]) -> dict[str, Any]:
    """What a client sees of a run."""
    return {
        "run": run.id,
        "agent": run.agent,
        "status": run.status,
        "cancelling": run.cancelling,
        "dead": run.dead,
        "seq": run.seq,
        "reason": run.reason,
    }


def ending(result: RunResult[Any]) -> dict[str, Any]:
    """What a client is told of a run's end."""
    return {"status": result.status, "output": result.output if result.ok else None}


def nothing(_: object) -> None:
    """An answer that tells nothing but that it was done."""


def what_is(event: Event) -> str:
    """An event in one word, and a digest of all of it."""
    digest = sha256(json.dumps([event.at.isoformat(), event.step, event.data], default=str).encode()).hexdigest()
    return f"{event.kind} {digest[:16]}"
