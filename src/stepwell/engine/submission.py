"""Submission: from what a caller gives to a stored run, started at once where a local worker has a free slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stepwell.domain import values
from stepwell.domain.errors import InvalidInput, InvalidValue, Seconds
from stepwell.domain.ids import ENTROPY_BYTES, RUN, make_id, own_session
from stepwell.domain.outcome import Payload
from stepwell.domain.retry import micros
from stepwell.domain.run import PRIORITY_RANGE
from stepwell.ports.crash_point import CrashPoint
from stepwell.ports.store import Claim, Submission, Submitted

if TYPE_CHECKING:
    from stepwell.engine.worker import Worker
    from stepwell.ports.clock import Clock, Entropy
    from stepwell.ports.runnable import Runnable
    from stepwell.ports.store import Store

MAX_INPUT: Final = 1024 * 1024
INLINE_INPUT: Final = 256 * 1024
_MAX_KEY: Final = 500
_MAX_METADATA: Final = 64 * 1024

_submitted = CrashPoint("submission.after_submit")


class Options(NamedTuple):
    """How a run is to be started."""

    idempotency_key: str | None = None
    delay: Seconds | None = None
    priority: int = 0
    metadata: Mapping[str, str] | None = None


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
        text = _input_text(runnable, value)
        submission = await self._submission(runnable, text, options)
        worker = self._worker if not options.delay else None
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
        content = text.encode() if len(text) * 4 > INLINE_INPUT else b""
        if len(content) > INLINE_INPUT:
            payload = Payload(None, await self._store.put_blob(content), len(content))
        else:
            payload = Payload(text)
        return Submission(
            id=run_id,
            agent=runnable.name,
            version=runnable.version,
            session=own_session(run_id),
            input=payload,
            input_digest=values.digest(values.loads(text)) if options.idempotency_key is not None else "",
            available_at=now + (micros(options.delay, what="delay") if options.delay else 0),
            created_at=now,
            timeout=runnable.timeout,
            priority=_checked_priority(options.priority),
            idempotency_key=_checked_key(options.idempotency_key),
            metadata=_metadata_text(options.metadata),
        )


def _input_text(runnable: Runnable, value: Any) -> str:
    text = runnable.encode_input(value)
    try:
        values.check_size(text, MAX_INPUT, "input")
    except InvalidValue as error:
        raise InvalidInput(
            error.message,
            code="input.size",
            hint="keep large data in a file or a store of your own, and pass its name",
        ) from None
    return text


def _checked_priority(priority: int) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int) or not -PRIORITY_RANGE <= priority <= PRIORITY_RANGE:
        raise InvalidInput(
            f"priority {priority!r} is not a whole number from {-PRIORITY_RANGE} to {PRIORITY_RANGE}",
            code="input.priority",
            hint="one point is worth a place 30 seconds earlier in the queue",
        )
    return priority


def _checked_key(key: str | None) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY:
        raise InvalidInput(
            f"idempotency key {key!r:.80} is not a text of 1 to {_MAX_KEY} characters", code="input.idempotency_key"
        )
    _check_text(key, "idempotency_key")
    return key


def _metadata_text(metadata: Mapping[str, str] | None) -> str:
    if not metadata:
        return "{}"
    plain = dict(metadata)
    for name, value in plain.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidInput(
                f"metadata[{name!r}] is {type(value).__name__}; names and values are texts", code="input.metadata"
            )
    _check_text(plain, "metadata")
    text = values.dumps(plain)
    if len(text) > _MAX_METADATA:
        raise InvalidInput(
            f"metadata has {len(text):,} characters; the limit is {_MAX_METADATA:,}", code="input.metadata"
        )
    return text


def _check_text(value: Any, what: str) -> None:
    try:
        values.check(value, what=what)
    except InvalidValue as error:
        raise InvalidInput(error.message, code=error.code, path=error.path) from None
