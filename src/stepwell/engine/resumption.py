"""Resumption: a person lifts a hold, and settles the step that is in doubt where there is one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from stepwell.codec import codec_for
from stepwell.domain import event, values
from stepwell.domain.errors import Conflict, InvalidInput, InvalidValue
from stepwell.domain.event import Draft
from stepwell.domain.outcome import ErrorInfo
from stepwell.domain.run import IN_DOUBT, RunRecord

if TYPE_CHECKING:
    from stepwell.ports.clock import Clock
    from stepwell.ports.store import Store

Verdict = Literal["done", "rerun", "fail"]


async def resume(
    store: Store, clock: Clock, run: RunRecord, *, by: str, verdict: Verdict | None, result: Any = None
) -> RunRecord:
    """Lift the hold of a run as it was last read.

    `verdict` is needed for a run that is held `in_doubt`, and only there: "done" records `result` as the step's,
    "rerun" lets the step run again, "fail" records its failure. Raises `Conflict` when the run is not held, needs a
    verdict, or changed meanwhile, and `InvalidInput` for a result that is not data.
    """
    if verdict not in (None, "done", "rerun", "fail"):
        raise InvalidInput(
            f"verdict {verdict!r:.80} is none of done, rerun and fail", code="input.verdict", hint="nothing was changed"
        )
    if result is not None and verdict != "done":
        raise InvalidInput(
            "a result was given, and the verdict is not done", code="input.verdict", hint="nothing was changed"
        )
    drafts: tuple[Draft, ...] = ()
    if run.life.hold == IN_DOUBT and verdict is not None:
        drafts = (_settlement(await _doubt(store, run.id), verdict, result, clock.now()),)
    return await store.resume(run.id, at_seq=run.life.seq, by=by, drafts=drafts, verdict=verdict)


async def _doubt(store: Store, run_id: str) -> dict[str, Any]:
    entry = await store.last_entry(run_id, (event.RUN_HELD,))
    if entry is None:
        raise Conflict("the journal does not say what is in doubt", code="run.changed")
    facts: dict[str, Any] = json.loads(entry.data)
    return facts


def _settlement(doubt: dict[str, Any], verdict: Verdict, result: Any, now: int) -> Draft:
    facts = {name: doubt[name] for name in ("name", "digest", "function")}
    step = doubt["step"]
    if verdict == "done":
        return Draft(event.STEP_COMPLETED, _with_result(facts, result), step)
    if verdict == "rerun":
        error = ErrorInfo("step.rerun", "a person decided that the step runs again", retryable=True)
        more = {"error": json.loads(error.text()), "verdict": "rerun", "retry_at": now}
    else:
        error = ErrorInfo("step.settled_as_failed", "a person decided that the step failed")
        more = {"error": json.loads(error.text()), "verdict": "fail"}
    return Draft(event.STEP_FAILED, values.dumps(facts | more), step)


def _with_result(facts: dict[str, Any], result: Any) -> str:
    try:
        text = codec_for(type(result)).encode(result, "result")
    except InvalidValue as error:
        raise InvalidInput(error.message, code=error.code, path=error.path, hint=error.hint) from None
    return f'{values.dumps(facts)[:-1]},"verdict":"done","ms":0,"result":{text}}}'
