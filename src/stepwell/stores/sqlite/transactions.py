"""Carrying operations out: one transaction for all that wait, each alone when that fails, and what errors mean.

Belongs to the writer thread; knows nothing of event loops.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import apsw

from stepwell.domain.errors import StepwellError, StoreError
from stepwell.ports import crash_point
from stepwell.ports.clock import Clock
from stepwell.ports.crash_point import CrashPoint
from stepwell.ports.notifier import CONTROL, QUEUE
from stepwell.stores.sqlite import doubt, errors, files, ties
from stepwell.stores.sqlite.batch import Batch
from stepwell.stores.sqlite.claims import Take
from stepwell.stores.sqlite.connection import Checkpoints
from stepwell.stores.sqlite.deaths import Deaths
from stepwell.stores.sqlite.operations import Operation
from stepwell.stores.sqlite.recall import Recall

_STILL_THERE_EVERY: Final = 1.0
_UNKNOWN: Final = -1

_KINDS: Final = (
    *("submit", "claim", "commit", "outcome", "worker", "blob", "session"),
    *("signal", "answer", "cancel", "pause", "resume", "discard"),
)
_before_commit: Final = {kind: CrashPoint(f"{kind}.before_commit") for kind in _KINDS}
_after_commit: Final = {kind: CrashPoint(f"{kind}.after_commit") for kind in _KINDS}


@dataclass(slots=True)
class Stats:
    """What was done since the store was opened.

    `largest` is the most operations that shared a transaction; `reruns` counts those that were tried again alone,
    `looks` the looks for changes by other processes.
    """

    transactions: int = 0
    operations: int = 0
    largest: int = 0
    reruns: int = 0
    looks: int = 0
    checkpoints: int = 0


@dataclass(slots=True)
class Changes:
    """Whom to wake: runs that changed, `QUEUE` if something became claimable, `CONTROL` if something was asked of a
    running run; everybody if another process wrote.
    """

    topics: set[str]
    foreign: bool = False


class Transactions:
    """The writing connection and what is known through it."""

    def __init__(
        self,
        connection: apsw.Connection,
        checkpoints: Checkpoints,
        path: str,
        clock: Clock,
        deaths: Deaths,
        boot_id: str,
    ) -> None:
        self.stats = Stats()
        self._connection = connection
        self._checkpoints = checkpoints
        self._cursor = connection.cursor()  # one for all writes: a connection would make one for each statement
        self._path = path
        self._clock = clock
        self._deaths = deaths
        self._boot_id = boot_id
        self._recall = Recall()
        self._failed: StoreError | None = None
        self._identity = files.identity(path)
        self._looked_for_file = time.monotonic()
        self._version = connection.data_version()

    @property
    def failed(self) -> StoreError | None:
        """Why nothing more is written to the file, if that is so."""
        return self._failed

    def fail(self, error: StoreError) -> None:
        """Write nothing more. The first reason stays."""
        if self._failed is None:
            self._failed = error
            if error.code == "store.io_error":
                doubt.leave(self._path, self._boot_id)

    def close(self) -> None:
        """Close the connection; after a failure without the writes that closing would make, which SQLite would not tell
        of either.
        """
        if self.stats.transactions:
            self.checkpoint()
        if self._failed is not None:
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connection.close()

    def carry_out(self, operations: Sequence[Operation]) -> Changes:
        """Give each operation its answer or its error. Never raises."""
        changes = Changes(set())
        self._check_file()
        if self._failed is not None:
            _refuse(operations, self._failed)
            return changes
        try:
            operations = self._claims_to_make(operations)
            if operations:
                self._attempt(operations, changes, careful=False)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the answer of those who asked
            self._recover(operations, changes, error)
        return changes

    def has_foreign_change(self) -> bool:
        """Whether another connection has written since this was asked last, or since the last transaction."""
        self.stats.looks += 1
        if self._failed is not None:
            return False
        try:
            self._connection.execute("PRAGMA data_version")  # any read: it makes SQLite notice what others wrote
            return self._is_foreign()
        except apsw.Error:  # the next transaction meets the same error and reports it
            return False

    def checkpoint(self) -> None:
        """Move what is in the log into the file, as far as readers allow. For when there is nothing else to do."""
        self.stats.checkpoints += 1
        if self._failed is None:
            self._checkpoints.make()
            self._note_failed_checkpoint()

    def _note_failed_checkpoint(self) -> None:
        if self._checkpoints.failed is not None:
            self.fail(self._checkpoints.failed)

    # ------------------------------------------------------------ one transaction

    def _attempt(self, operations: Sequence[Operation], changes: Changes, *, careful: bool) -> None:
        self._cursor.execute("BEGIN IMMEDIATE")
        try:
            if self._is_foreign():
                changes.foreign = True
            batch = self._batch(careful=careful)
            for operation in operations:
                operation.prepare(batch)
            batch.load()
            _apply(operations, batch)
            batch.save()
            _pass(_before_commit, operations)
            self._commit(batch)
        except BaseException:  # nothing of it stays, here or in the file, and the error goes on
            self._roll_back()
            raise
        self._note_failed_checkpoint()  # what is committed is in the log, and stays answered
        self._note(batch, len(operations), changes)
        self._finish(operations, batch)

    def _batch(self, *, careful: bool = False) -> Batch:
        return Batch(self._cursor, self._recall, self._deaths, self._clock, careful=careful)

    def _commit(self, batch: Batch) -> None:
        """Commit. A failed one is unknown, not failed: unless SQLite says that it is still open, the file decides."""
        try:
            self._cursor.execute("COMMIT")
        except apsw.Error:
            if self._connection.in_transaction or not self._has_landed(batch):
                raise
            self._version = _UNKNOWN  # what else was written since cannot be told from this commit
        else:
            self._version = self._connection.data_version()

    def _has_landed(self, batch: Batch) -> bool:
        try:
            return batch.has_landed()
        except apsw.Error:  # cannot be asked either: the first error is the one to report
            return False

    def _roll_back(self) -> None:
        self._recall.forget()
        if self._connection.in_transaction:
            with contextlib.suppress(apsw.Error):  # the error that led here is the one to report
                self._connection.execute("ROLLBACK")

    def _note(self, batch: Batch, operations: int, changes: Changes) -> None:
        self._recall.keep(batch.changed)
        stats = self.stats
        stats.transactions += 1
        stats.operations += operations
        if operations > stats.largest:
            stats.largest = operations
        changes.topics.update(batch.changed)
        if batch.claimable:
            changes.topics.add(QUEUE)
        if batch.control:
            changes.topics.add(CONTROL)

    def _finish(self, operations: Sequence[Operation], batch: Batch) -> None:
        try:
            for action in batch.afterwards:
                action()
            _pass(_after_commit, operations)
        except Exception as error:  # noqa: BLE001 - it is written, but those who asked do not learn it
            _refuse(operations, error)

    # ------------------------------------------------------------ when it goes wrong

    def _recover(self, operations: Sequence[Operation], changes: Changes, error: Exception) -> None:
        """A condition of the store is everybody's answer; anything else is the fault of one, so each is tried alone."""
        if self._is_condition(operations, error):
            return
        for operation in operations:
            self.stats.reruns += 1
            try:
                self._attempt([operation], changes, careful=True)
            except Exception as own:  # noqa: BLE001 - whatever it is, it is this operation's answer
                if not self._is_condition([operation], own):
                    _refuse([operation], self._wrap(own))

    def _is_condition(self, operations: Sequence[Operation], error: Exception) -> bool:
        condition = errors.translate(error, self._path, self._connection) if isinstance(error, apsw.Error) else None
        if condition is None:
            return False
        condition.__cause__ = error
        if errors.is_fatal(condition):
            self.fail(condition)
        _refuse(operations, condition)
        return True

    def _wrap(self, error: Exception) -> Exception:
        if not isinstance(error, apsw.Error):
            return error
        public = errors.unexpected(error, self._path)
        public.__cause__ = error
        return public

    # ------------------------------------------------------------ what others did

    def _claims_to_make(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """Answer claims that would find nothing by looking, which takes no lock, if there is nothing else to write."""
        if operations[0].kind != Take.kind or any(operation.kind != Take.kind for operation in operations):
            return operations
        batch = self._batch()
        rest = []
        for operation in operations:
            assert isinstance(operation, Take)
            operation.answer = operation.idle(batch)
            if operation.answer is None:
                rest.append(operation)
        return rest

    def _is_foreign(self) -> bool:
        """The counter by which SQLite judges its own page cache: it moves with each commit, ours and others'."""
        version = self._connection.data_version()
        if version == self._version:
            return False
        self._version = version
        self._recall.forget_rows()
        return True

    def _check_file(self) -> None:
        now = time.monotonic()
        if now - self._looked_for_file > _STILL_THERE_EVERY:
            self._looked_for_file = now
            if files.identity(self._path) != self._identity:
                self._failed = files.moved(self._path)


def _pass(points: Mapping[str, CrashPoint], operations: Iterable[Operation]) -> None:
    """Pass the point of every kind of operation in the batch."""
    if crash_point.is_armed():
        for kind in sorted({operation.kind for operation in operations}):
            points[kind]()


def _apply(operations: Sequence[Operation], batch: Batch) -> None:
    """In the order of the calls, what follows from them for other runs, and claims last: so they see all that the rest
    made claimable.
    """
    claims = []
    for operation in operations:
        if operation.kind == Take.kind:
            claims.append(operation)
        else:
            _decide(operation, batch)
    ties.settle(batch)
    for claim in claims:
        _decide(claim, batch)
    ties.settle(batch)


def _decide(operation: Operation, batch: Batch) -> None:
    operation.error = None  # what refused it before a transaction that failed holds no longer
    if batch.careful and operation.has_landed(batch):
        return
    try:
        operation.apply(batch)
    except StepwellError as error:  # refused: its own affair
        operation.error = error


def _refuse(operations: Iterable[Operation], error: Exception) -> None:
    for operation in operations:
        operation.error = error
