"""How a run ended: its result, and the files that it kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, cast

from typing_extensions import TypeVar

from stepwell.domain import event
from stepwell.domain.errors import RunFailed
from stepwell.domain.outcome import ErrorInfo
from stepwell.domain.run import SUCCEEDED, RunRecord, RunStatus
from stepwell.domain.values import dumps
from stepwell.ports.runnable import Runnable
from stepwell.ports.store import Store

if TYPE_CHECKING:
    from stepwell.engine.executor import Ending

O_co = TypeVar("O_co", covariant=True, default=Any)

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a run kept."""

    name: str
    media_type: str
    size: int
    _ref: str
    _store: Store

    async def bytes(self) -> bytes:
        """The content."""
        return await self._store.get_blob(self._ref)

    async def text(self) -> str:
        """The content, read as UTF-8."""
        return (await self.bytes()).decode("utf-8")


class RunResult(Generic[O_co]):
    """How a run ended. Everything but `output` can be read whatever the status is.

    `reason` is a short word for the cause, `error` is set when the run failed, `artifacts` are the files it kept,
    newest of each name, in the order in which they were first kept.
    """

    def __init__(
        self,
        record: RunRecord,
        *,
        output: Any = None,
        error: ErrorInfo | None = None,
        artifacts: Sequence[Artifact] = (),
    ) -> None:
        self.run_id = record.id
        self.status = cast("RunStatus", record.life.status)
        self.reason = record.life.reason
        self.ok = record.life.status == SUCCEEDED
        self.error = error
        self.artifacts = artifacts
        self._output = output

    @property
    def output(self) -> O_co:
        """What the agent returned. Raises `RunFailed` unless the run succeeded."""
        if not self.ok:
            code = self.error.code if self.error else f"run.{self.status}"
            why = f": {self.error.message}" if self.error else f" ({self.reason})" if self.reason else ""
            raise RunFailed(
                f"run {self.run_id} {_sentence(self.status)}{why}",
                run_id=self.run_id,
                status=self.status,
                code=code,
                hint=f"see: stepwell runs show {self.run_id[-6:]}",
                retryable=bool(self.error and self.error.retryable),
            )
        return cast("O_co", self._output)

    def __repr__(self) -> str:
        return f"<result of {self.run_id}: {self.status}>"


def result_of(ending: Ending, store: Store, runnable: Runnable | None) -> RunResult[Any]:
    """The result of a run that succeeded in this process a moment ago; its end is committed."""
    ended = ending.run._replace(life=ending.run.life._replace(status=SUCCEEDED, reason=None))
    artifacts = tuple(_artifact(facts, store) for facts in ending.artifacts)
    return RunResult(ended, output=_decode(ending.output, runnable), artifacts=artifacts)


async def read_result(record: RunRecord, store: Store, runnable: Runnable | None) -> RunResult[Any]:
    """The result of a run that has ended, from the store."""
    entry = await store.last_entry(record.id, tuple(event.ENDS))
    facts = json.loads(entry.data) if entry is not None else {}
    artifacts = await _read_artifacts(record.id, store)
    if record.life.status != SUCCEEDED:
        return RunResult(record, error=_error(facts), artifacts=artifacts)
    blob = facts.get("ref")
    text = dumps(facts["output"]) if blob is None else (await store.get_blob(blob["blob"])).decode()
    return RunResult(record, output=_decode(text, runnable), artifacts=artifacts)


async def _read_artifacts(run_id: str, store: Store) -> Sequence[Artifact]:
    found: dict[str, Artifact] = {}
    after = 0
    while entries := await store.journal(run_id, after=after, limit=_PAGE, kinds=(event.ARTIFACT_SAVED,)):
        for entry in entries:
            facts = json.loads(entry.data)
            found[facts["name"]] = _artifact(facts, store)
            after = entry.seq
    return tuple(found.values())


def _artifact(facts: Mapping[str, Any], store: Store) -> Artifact:
    return Artifact(facts["name"], facts["media_type"], facts["size"], facts["artifact"], store)


def _decode(text: str, runnable: Runnable | None) -> Any:
    return json.loads(text) if runnable is None else runnable.decode_output(text)


def _error(facts: Mapping[str, Any]) -> ErrorInfo | None:
    error = facts.get("error")
    if error is None:
        return None
    return ErrorInfo(
        error["code"],
        error["message"],
        error["retryable"],
        error.get("type"),
        error.get("step"),
        tuple(error.get("traceback", ())),
    )


def _sentence(status: str) -> str:
    return {"failed": "failed", "cancelled": "was cancelled", "timed_out": "timed out", "exhausted": "used up a limit"}[
        status
    ]
