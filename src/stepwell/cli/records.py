"""The JSON that commands write with `--json` and `--events`: one shape for each noun. Times are ISO 8601 in UTC."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stepwell.domain.outcome import ErrorInfo

if TYPE_CHECKING:
    from stepwell.domain.event import Event
    from stepwell.runtime import Artifact, Question, Run, RunResult, StoredSession


def line(record: Any) -> str:
    """A record on one line."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def page(record: Any) -> str:
    """A record as people read it."""
    return json.dumps(record, ensure_ascii=False, indent=2)


def event_record(event: Event) -> dict[str, Any]:
    """An event; `data` is as the kind defines it."""
    return {
        "seq": event.seq,
        "kind": event.kind,
        "at": _time(event.at),
        "run_id": event.run_id,
        "session_id": event.session_id,
        "agent": event.agent,
        "trigger": event.trigger,
        "node": event.node,
        "step": event.step,
        "data": dict(event.data),
    }


def run_record(run: Run[Any]) -> dict[str, Any]:
    """A run as last read."""
    return {
        "id": run.id,
        "agent": run.agent,
        "version": run.version,
        "status": run.status,
        "reason": run.reason,
        "dead": run.dead,
        "attempt": run.attempt,
        "created_at": _time(run.created_at),
        "session_id": run.session_id,
        "trigger": run.trigger,
        "parent_id": run.parent_id,
        "retry_of": run.retry_of,
        "metadata": dict(run.metadata),
    }


def question_record(question: Question[Any]) -> dict[str, Any]:
    """A question; `schema` is the JSON Schema of its answers."""
    return {
        "id": question.id,
        "text": question.text,
        "details": question.details,
        "assignee": question.assignee,
        "run_id": question.run_id,
        "agent": question.agent,
        "schema": dict(question.schema),
        "asked_at": _time(question.asked_at),
        "until": None if question.until is None else _time(question.until),
    }


def session_record(session: StoredSession) -> dict[str, Any]:
    """A session, without what it keeps."""
    return {
        "id": session.id,
        "created_at": _time(session.created_at),
        "updated_at": _time(session.updated_at),
        "message_count": session.message_count,
        "keys": list(session.keys),
    }


def result_record(result: RunResult[Any], output: Any) -> dict[str, Any]:
    """How a run ended; `output` is plain JSON, `null` unless it succeeded."""
    return {
        "run_id": result.run_id,
        "status": result.status,
        "reason": result.reason,
        "ok": result.ok,
        "output": output,
        "error": error_record(result.error),
        "artifacts": [artifact_record(artifact) for artifact in result.artifacts],
    }


def unfinished_record(run: Run[Any]) -> dict[str, Any]:
    """A run that has not ended, in the shape of a result."""
    return {
        "run_id": run.id,
        "status": run.status,
        "reason": run.reason,
        "ok": False,
        "output": None,
        "error": None,
        "artifacts": [],
    }


def artifact_record(artifact: Artifact) -> dict[str, Any]:
    """A file that a run kept, without its content."""
    return {"name": artifact.name, "media_type": artifact.media_type, "size": artifact.size}


def error_record(error: ErrorInfo | None) -> dict[str, Any] | None:
    """Why something failed."""
    record: dict[str, Any] | None = None if error is None else json.loads(error.text())
    return record


def _time(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")
