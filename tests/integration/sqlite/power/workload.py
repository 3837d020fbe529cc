"""A workload on the real store: everything that runs go through, by a seed, and a note of every call that returned.

The same seed makes the same calls. It goes on when the store refuses a call, and notes with what error.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final, NamedTuple, TypeVar

from stepwell.domain.commit import Commit
from stepwell.domain.errors import StepwellError, StoreError, StoreFull
from stepwell.domain.event import Entry
from stepwell.domain.ids import own_session
from stepwell.domain.outcome import NEVER, ErrorInfo, Failed, Held, Outcome, Parked, Payload, Retrying, Succeeded
from stepwell.domain.run import Lease
from stepwell.domain.session import SessionMessage, SessionWrite
from stepwell.domain.submission import Lane
from stepwell.domain.wait import Wait
from stepwell.ports.clock import Clock
from stepwell.ports.store import ClaimRequest, Committed, RunQuery, Store
from stepwell.testing.conformance.harness import AGENT, SECOND, Harness, beat, note

SESSION: Final = "ses_support"
BLOB: Final = -1

T = TypeVar("T")


class Acknowledged(NamedTuple):
    """What a call promised when it returned: that the run's journal begins with these `seq` entries (by their digest).
    For `seq` -1 `name` is that of a blob. `at` is the disk's position by then.
    """

    at: int
    name: str
    seq: int
    digest: str


class Workload:
    """One worker with all its runs.

    `told` gets each promise. `refusals` are the errors of the store, `half_done` the runs that changed when it said
    that nothing was stored. `store` is `None` while it cannot be opened.
    """

    def __init__(
        self,
        make: Callable[[Clock], Store],
        seed: int,
        *,
        position: Callable[[], int] = lambda: 0,
        told: Callable[[Acknowledged], None] | None = None,
    ) -> None:
        self.harness = Harness(make)
        self.acknowledged: list[Acknowledged] = []
        self.refusals: list[StoreError] = []
        self.half_done: list[str] = []
        self.store: Store | None = None
        self._random = Random(seed)
        self._position = position
        self._told = told or self.acknowledged.append
        self._promised: dict[str, str] = {}
        self._worker: str | None = None
        self._held: dict[str, tuple[Lease, int]] = {}
        self._open: dict[str, Wait] = {}

    async def run(self, moves: int) -> None:
        """Make that many moves, the first of which opens the store, and leave it open."""
        await self._reopen()
        choices = [move for weight, move in self._moves() for _ in range(weight)]
        for _ in range(moves):
            await self._random.choice(choices)()

    async def close(self) -> None:
        """Close the store."""
        await self.harness.close()
        self.store = None

    def _moves(self) -> Sequence[tuple[int, Callable[[], Awaitable[None]]]]:
        return (
            *((6, self._submit), (6, self._claim), (10, self._append), (3, self._keep), (5, self._finish)),
            *((4, self._park), (5, self._wake), (2, self._call_child), (3, self._use_session), (2, self._cancel)),
            *((2, self._set_aside), (2, self._beat), (2, self._pass_time), (1, self._reopen)),
        )

    # ------------------------------------------------------------ moves

    async def _reopen(self) -> None:
        await self.close()
        self._worker, self._held = None, {}
        try:
            self.store = await self.harness.make()
        except StoreError as error:
            self.refusals.append(error)

    async def _submit(self) -> None:
        await asyncio.gather(*(self._submit_one(number) for number in range(self._random.randint(1, 4))))

    async def _submit_one(self, number: int) -> None:
        lanes: tuple[Lane, ...] = ()
        session = None
        if number == 1:
            lanes, session = (Lane("session", SESSION, 1), Lane("agent", AGENT, 3)), SESSION
        submission = self.harness.submission(
            delay=self._random.choice((0, 0, 0, 30)), input=Payload(f'"{self._text()}"'), lanes=lanes
        )
        submission = submission._replace(
            session=session or own_session(submission.id),
            idempotency_key=submission.id if number == 2 else None,
        )
        await self._call(submission.id, lambda store: store.submit(submission))

    async def _claim(self) -> None:
        worker = self._worker
        if worker is None:
            worker = self._worker = await self._call(None, lambda store: self.harness.worker(store))
        if worker is None:
            return
        request = ClaimRequest(worker, self._random.randint(1, 6), (AGENT,))
        claims = await self._call(None, lambda store: store.claim(request))
        for claim in claims.taken if claims is not None else ():
            self._held[claim.run.id] = (claim.lease, 1)
            await self._promise(claim.run.id, self._position())

    async def _append(self) -> None:
        some = self._random.sample(sorted(self._held), min(len(self._held), self._random.randint(1, 5)))
        texts = [tuple(note(self._text()) for _ in range(self._random.randint(1, 3))) for _ in some]
        await asyncio.gather(
            *(self._commit(run_id, Commit(0, drafts)) for run_id, drafts in zip(some, texts, strict=True))
        )

    async def _keep(self) -> None:
        run_id = self._some_held()
        content = self._random.randbytes(self._random.choice((100, 5_000, 300_000)))
        name = await self._call(None, lambda store: store.put_blob(content))
        if name is not None:
            self._told(Acknowledged(self._position(), name, BLOB, _digest(content)))
            if run_id is not None:
                await self._commit(run_id, Commit(0, (note(name),)))

    async def _finish(self) -> None:
        later = self.harness.clock.now() + 10 * SECOND
        outcomes: list[Outcome] = [Succeeded(Payload(f'"{self._text()}"')), Failed(ErrorInfo("x", "y"), dead=True)]
        outcomes += [Retrying(ErrorInfo("x", "y"), later), Held("in_doubt", by="step"), Succeeded(Payload("1"))]
        run_id = self._some_held()
        if run_id is not None:
            await self._commit(run_id, Commit(0, (note("last"),), outcome=self._random.choice(outcomes)))

    async def _park(self) -> None:
        run_id = self._some_held()
        if run_id is None:
            return
        wait = self.harness.question() if self._random.random() < 0.5 else self.harness.signal_wait()
        opened = await self._commit(run_id, Commit(0, opens=(wait,)))
        if opened is not None:
            self._open[run_id] = wait
            await self._commit(run_id, Commit(0, outcome=Parked(NEVER, "[]", opened.seq)))

    async def _wake(self) -> None:
        if not self._open:
            return
        run_id = self._random.choice(sorted(self._open))
        wait = self._open.pop(run_id)
        if wait.type == "question":
            await self._call(run_id, lambda store: store.answer(wait.id, Payload("true"), by="ann"))
        else:
            signal = self.harness.signal(value=f'"{self._text()}"')
            await self._call(run_id, lambda store: store.signal(run_id, signal))

    async def _call_child(self) -> None:
        run_id = self._some_held()
        store = self.store
        if run_id is None or store is None:
            return
        child = self.harness.child_of(await store.get(run_id), number=self._random.randint(1, 1_000_000))
        wait = self.harness.child_wait(child.id)
        made = await self._commit(run_id, Commit(0, (note("child"),), submits=(child,), opens=(wait,)))
        if made is not None:
            await self._promise(child.id, self._position())
            await self._commit(run_id, Commit(0, outcome=Parked(NEVER, "[]", made.seq)))

    async def _use_session(self) -> None:
        run_id = self._some_held()
        if run_id is not None:
            write = SessionWrite(SESSION, "plan", Payload(f'"{self._text()}"'), None)
            message = SessionMessage(SESSION, "user", Payload(f'"{self._text()}"'), None)
            await self._commit(run_id, Commit(0, writes=(write,), messages=(message,)))

    async def _cancel(self) -> None:
        run_id = await self._any_run()
        if run_id is not None:
            await self._call(run_id, lambda store: store.cancel(run_id, by="ann"))

    async def _set_aside(self) -> None:
        run_id = await self._any_run()
        if run_id is None:
            return
        paused = await self._call(run_id, lambda store: store.pause(run_id, by="ann"))
        if paused is not None:
            await self._call(run_id, lambda store: store.resume(run_id, at_seq=paused.life.seq, by="ann"))

    async def _beat(self) -> None:
        worker = self._worker
        if worker is not None:
            await self._call(None, lambda store: beat(store, worker))

    async def _pass_time(self) -> None:
        self.harness.clock.advance(20)

    # ------------------------------------------------------------ calls

    async def _commit(self, run_id: str, write: Commit) -> Committed | None:
        """One write of a lease holder; the lease is over when it has an outcome, or is refused."""
        if run_id not in self._held:
            return None
        lease, number = self._held[run_id]
        numbered = write._replace(number=number)
        refused = len(self.refusals)
        committed = await self._call(run_id, lambda store: store.commit(lease, numbered))
        if len(self.refusals) > refused:
            return None
        if committed is None or write.outcome is not None:
            self._held.pop(run_id, None)
        else:
            self._held[run_id] = (lease, number + 1)
        return committed

    async def _call(self, run_id: str | None, call: Callable[[Store], Awaitable[T]]) -> T | None:
        """The answer of the store, `None` when it refused. What it promised about the run is noted."""
        store = self.store
        if store is None:
            return None
        try:
            answer = await call(store)
        except StoreError as error:
            self.refusals.append(error)
            if run_id is not None and isinstance(error, StoreFull):
                await self._check_untouched(store, run_id)
            return None
        except StepwellError:  # the workload asked for what cannot be had: another run, or another time
            return None
        if run_id is not None:
            await self._promise(run_id, self._position())
        return answer

    async def _promise(self, run_id: str, at: int) -> None:
        assert self.store is not None
        entries = await self.store.journal(run_id, limit=1_000_000)
        digest = self._promised[run_id] = digest_of(entries)
        self._told(Acknowledged(at, run_id, len(entries), digest))

    async def _check_untouched(self, store: Store, run_id: str) -> None:
        """An error that says that nothing was stored must be right."""
        found = digest_of(await store.journal(run_id, limit=1_000_000))
        if found != self._promised.get(run_id, digest_of([])):
            self.half_done.append(run_id)

    async def _any_run(self) -> str | None:
        if self.store is None:
            return None
        runs = await self.store.find(RunQuery(ended=False, limit=1_000))
        return self._random.choice(runs).id if runs else None

    def _some_held(self) -> str | None:
        return self._random.choice(sorted(self._held)) if self._held else None

    def _text(self) -> str:
        return "".join(self._random.choices("abcdefgh ", k=self._random.choice((5, 200, 3_000))))


def digest_of(entries: Sequence[Entry]) -> str:
    """What a journal says, short."""
    return _digest("\n".join(f"{entry.seq} {entry.at} {entry.kind} {entry.data}" for entry in entries).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
