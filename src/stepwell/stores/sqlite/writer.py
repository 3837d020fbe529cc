"""The one thread that writes: takes what waits, has it carried out in one transaction, and answers everybody at once.

Batches size themselves: while one is on its way to the disk, the next gathers. While somebody waits for hints, the
thread also looks every 10 ms whether another process has written; while nobody does, it sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from stepwell.domain.commit import Commit
from stepwell.domain.errors import StoreError
from stepwell.domain.outcome import HandedBack
from stepwell.ports.crash_point import CrashPoint
from stepwell.stores.hints import Hints
from stepwell.stores.sqlite.operations import Operation, Settle
from stepwell.stores.sqlite.transactions import Changes, Stats, Transactions

_MOST_AT_ONCE: Final = 2000
_LOOK_EVERY: Final = 0.01
_CHECKPOINT_AFTER_IDLE: Final = 1.0

_before_reply: Final = CrashPoint("batch.before_reply")


class Writer:
    """The thread and the queue to it. `open_file` runs in the thread and gives it the connection."""

    def __init__(self, hints: Hints, open_file: Callable[[], Transactions]) -> None:
        self._hints = hints
        self._open_file = open_file
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[list[Operation] | None] = queue.SimpleQueue()
        self._gathered: list[Operation] = []
        self._ended = self._loop.create_future()
        self._thread: threading.Thread | None = None
        self._transactions: Transactions | None = None
        self._asleep = False
        self._stopping = False
        self._has_log = True
        self._wrote_at = time.monotonic()

    # ------------------------------------------------------------ on the event loop

    async def start(self) -> None:
        """Open the file in the thread. Raises what that raises, and leaves no thread behind then."""
        opened = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="stepwell-sqlite-writer", daemon=True)
        self._thread.start()
        try:
            await opened
        except asyncio.CancelledError:
            self._queue.put(None)  # the thread ends when it has opened the file
            raise
        except BaseException:  # it could not be opened: the thread is ending, and the error goes on
            self._thread.join()
            raise

    async def stop(self) -> None:
        """Finish what was accepted, then end the thread."""
        self._flush()
        self._queue.put(None)
        await asyncio.shield(self._ended)
        if self._thread is not None:
            self._thread.join()

    @property
    def stats(self) -> Stats:
        """What was done so far."""
        return self._transactions.stats if self._transactions is not None else Stats()

    @property
    def failed(self) -> StoreError | None:
        """Why nothing more is written to the file, if that is so."""
        return self._transactions.failed if self._transactions is not None else None

    def fail(self, error: StoreError) -> None:
        """Write nothing more to the file, because of what another connection met. From any thread."""
        if self._transactions is not None:
            self._transactions.fail(error)

    def ask(self, operation: Operation) -> asyncio.Future[Any]:
        """Have an operation carried out. All calls of one turn of the loop travel together."""
        operation.future = future = self._loop.create_future()
        self._gather(operation)
        return future

    def look_out(self) -> None:
        """Somebody begins to wait for hints: wake the thread if it sleeps without looking for foreign changes."""
        if self._asleep:
            self._queue.put([])

    def _gather(self, operation: Operation) -> None:
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(operation)

    def _flush(self) -> None:
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._queue.put(gathered)

    def _answer(self, operations: list[Operation], changes: Changes) -> None:
        for operation in operations:
            future = operation.future
            if future is None:
                continue
            if not future.done():
                if operation.error is None:
                    future.set_result(operation.answer)
                else:
                    future.set_exception(operation.error)
            elif operation.error is None:
                self._hand_back(operation)
        self._hint(changes)

    def _hand_back(self, operation: Operation) -> None:
        """Whoever asked has gone away: nobody would ever execute what it was given."""
        for lease in operation.leases():
            self._gather(Settle(lease, Commit(1, (), HandedBack())))

    def _hint(self, changes: Changes) -> None:
        if changes.foreign:
            self._hints.give_all()
        else:
            self._hints.give(changes.topics)

    # ------------------------------------------------------------ in the thread

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            transactions = self._transactions = self._open_file()
        except BaseException as error:  # noqa: BLE001 - it is raised where the store is being opened
            self._post(_settle, opened, error)
            self._post(_settle, self._ended, None)
            return
        self._post(_settle, opened, None)
        try:
            self._serve(transactions)
        finally:
            try:
                transactions.close()
            finally:  # whoever closes the store must not wait for ever
                self._post(_settle, self._ended, None)

    def _serve(self, transactions: Transactions) -> None:
        while not self._stopping:
            operations = self._wait()
            if operations:
                self._carry_out(transactions, operations)
            else:
                self._idle(transactions)

    def _carry_out(self, transactions: Transactions, operations: list[Operation]) -> None:
        changes = Changes(set())
        try:
            changes = transactions.carry_out(operations)
            self._has_log = True
            self._wrote_at = time.monotonic()
            _before_reply()
        except Exception as error:  # noqa: BLE001 - nobody may wait for ever, and the thread serves others
            for operation in operations:
                operation.error = error
        self._post(self._answer, operations, changes)

    def _wait(self) -> list[Operation]:
        """What waits to be carried out, as soon as there is something; nothing when it is time for a look around."""
        self._asleep = True  # before `waiting` is read: whoever begins to wait after that sees it and wakes the thread
        pause = self._pause()
        try:
            item = self._queue.get(timeout=pause)
        except queue.Empty:
            return []
        finally:
            self._asleep = False
        operations: list[Operation] = []
        while item is not None:
            operations += item
            if len(operations) >= _MOST_AT_ONCE:
                return operations
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return operations
        self._stopping = True
        return operations

    def _pause(self) -> float | None:
        if self._hints.waiting:
            self._asleep = False
            return _LOOK_EVERY
        return _CHECKPOINT_AFTER_IDLE if self._has_log else None

    def _idle(self, transactions: Transactions) -> None:
        if self._hints.waiting and transactions.has_foreign_change():
            self._post(self._hint, Changes(set(), foreign=True))
        if self._has_log and time.monotonic() - self._wrote_at >= _CHECKPOINT_AFTER_IDLE:
            transactions.checkpoint()
            self._has_log = False

    def _post(self, callback: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *arguments)


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
