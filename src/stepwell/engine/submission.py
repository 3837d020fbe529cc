"""Submission: from what a caller gives to a stored run, started at once where a local worker has a free slot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stepwell.codec.schema_check import check_schema
from stepwell.domain import event, transitions, values
from stepwell.domain.errors import Conflict, NotFound, Seconds
from stepwell.domain.event import Draft, Entry
from stepwell.domain.ids import ENTROPY_BYTES, RUN, make_id, own_session
from stepwell.domain.outcome import Payload
from stepwell.domain.retry import micros
from stepwell.domain.run import SUCCEEDED, RunRecord
from stepwell.domain.submission import Submission
from stepwell.engine.inheritance import detached, inherited
from stepwell.engine.inputs import checked_key, checked_priority, checked_session, input_text, metadata_text, payload
from stepwell.ports.crash_point import CrashPoint
from stepwell.ports.store import Claim, QuestionQuery, RunQuery, Submitted

if TYPE_CHECKING:
    from stepwell.engine.worker import Worker
    from stepwell.ports.clock import Clock, Entropy
    from stepwell.ports.runnable import Runnable
    from stepwell.ports.store import Store

_MOST_ASKED: Final = 100

_submitted = CrashPoint("submission.after_submit")


class Options(NamedTuple):
    """How a run is to be started. Without a `session` it has one of its own."""

    idempotency_key: str | None = None
    delay: Seconds | None = None
    priority: int = 0
    metadata: Mapping[str, str] | None = None
    session: str | None = None


class Submitter:
    """Makes runs. `worker`, where there is one, may start them in the same write."""

    def __init__(self, store: Store, *, clock: Clock, entropy: Entropy, worker: Worker | None) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._worker = worker

    async def submit(self, runnable: Runnable, value: Any, options: Options) -> Submitted:
        """Create the run, durably when this returns.

        Raises `InvalidInput`, `Conflict`, `Busy` and what the store raises.
        """
        text = input_text(runnable, value)
        return await self._start(await self._submission(runnable, text, options), text, options.delay)

    async def _start(self, submission: Submission, text: str, delay: Seconds | None) -> Submitted:
        worker = self._worker if not delay else None
        slot = None if worker is None else worker.offer_slot()
        if slot is None or worker is None:
            result = await self._store.submit(submission)
            _submitted()
            return result
        try:
            result = await self._store.submit(submission._replace(start_on=slot.worker))
        except BaseException:  # also when the caller is cancelled: the slot must not stay reserved
            worker.withdraw_slot(slot)
            raise
        _submitted()
        if result.lease is None:
            worker.withdraw_slot(slot)
        else:
            worker.accept(slot, Claim(result.run, result.lease, []), text)
        return result

    async def _submission(self, runnable: Runnable, text: str, options: Options) -> Submission:
        now = self._clock.now()
        run_id = make_id(RUN, now, self._entropy(ENTROPY_BYTES))
        session = own_session(run_id) if options.session is None else checked_session(options.session)
        lanes = runnable.lanes(text, session)
        return Submission(
            id=run_id,
            agent=runnable.name,
            version=runnable.version,
            session=session,
            input=await payload(self._store, text),
            input_digest=values.digest(values.loads(text)) if options.idempotency_key is not None else "",
            available_at=now + (micros(options.delay, what="delay") if options.delay else 0),
            created_at=now,
            timeout=runnable.timeout,
            priority=checked_priority(options.priority),
            idempotency_key=checked_key(options.idempotency_key),
            metadata=metadata_text(options.metadata),
            hooked=int(runnable.hooked),
            lanes=lanes,
            busy=runnable.busy,
            answers=await self._answers(session, text) if runnable.busy == "answer" else (),
        )

    async def _answers(self, session: str, text: str) -> tuple[str, ...]:
        """The open questions of the session's runs that the input fits."""
        fits = []
        for run in await self._store.find(RunQuery(session=session, ended=False, limit=_MOST_ASKED)):
            for question in await self._store.questions(QuestionQuery(run_id=run.id)):
                schema = json.loads(question.wait.data).get("schema", {})
                if not check_schema(schema, values.loads(text)):
                    fits.append(question.wait.id)
        return tuple(fits)

    async def _ends(self, parent: RunRecord, children: list[str]) -> dict[str, Draft]:
        """How children ended that their parent did not live to hear of."""
        ends = {}
        for child in children:
            with suppress(NotFound):  # no longer kept: nothing is known of its end
                run = await self._store.get(child, tenant=parent.tenant)
                entry = await self._store.last_entry(child, tuple(event.ENDS)) if run.life.ended else None
                if entry is not None:
                    ends[child] = transitions.end_of_child(run, entry.data)
        return ends

    async def retry(self, runnable: Runnable, run: RunRecord) -> Submitted:
        """Create a run that goes on where `run` ended: its input and session, what it finished, and no other mark of
        its attempts. A dead one is taken off the list of the dead.

        Raises `Conflict` (`run.not_ended`, `run.succeeded`), `InvalidInput` and what the store raises.
        """
        _check_retriable(run)
        journal = await self._journal(run)
        facts = json.loads(journal[0].data)
        blob = facts.get("ref")
        text = values.dumps(facts["input"]) if blob is None else (await self._store.get_blob(blob["blob"])).decode()
        now = self._clock.now()
        result = await self._store.submit(
            Submission(
                id=make_id(RUN, now, self._entropy(ENTROPY_BYTES)),
                agent=runnable.name,
                version=runnable.version,
                session=run.session,
                input=Payload(text) if blob is None else Payload(None, blob["blob"], blob["size"]),
                input_digest="",
                available_at=now,
                created_at=now,
                timeout=runnable.timeout,
                tenant=run.tenant,
                trigger=run.trigger,
                priority=run.priority,
                metadata=run.metadata,
                causal_depth=run.causal_depth,
                hooked=int(runnable.hooked),
                retry_of=run.id,
                origin=run.origin or run.id,
                inherited=inherited(journal, await self._ends(run, detached(journal))),
                lanes=runnable.lanes(text, run.session),
            )
        )
        _submitted()
        if run.life.dead:
            with suppress(Conflict):  # somebody discarded it at the same moment
                await self._store.discard(run.id, by=f"retry {result.run.id}", tenant=run.tenant)
        return result

    async def _journal(self, run: RunRecord) -> list[Entry]:
        found: list[Entry] = []
        while page := await self._store.journal(run.id, after=found[-1].seq if found else 0):
            found += page
        return found


def _check_retriable(run: RunRecord) -> None:
    if not run.life.ended:
        raise Conflict(
            f"run {run.id} has not ended, it is {run.life.shown}",
            code="run.not_ended",
            hint="a retry is for runs that ended without success; this one goes on by itself, or is to be resumed",
        )
    if run.life.status == SUCCEEDED:
        raise Conflict(
            f"run {run.id} succeeded: there is nothing to try again", code="run.succeeded", hint="start a new run"
        )
