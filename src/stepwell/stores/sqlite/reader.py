"""A few threads that read, each with a read-only connection of its own, started when they are first needed."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import apsw

from stepwell.stores.sqlite import errors

_MOST_THREADS: Final = 3

T = TypeVar("T")


class _Question:
    __slots__ = ("future", "put")

    def __init__(self, put: Callable[[apsw.Connection], Any], future: asyncio.Future[Any]) -> None:
        self.put = put
        self.future = future

    def settle(self, answer: Any, error: Exception | None) -> None:
        if self.future.done():  # whoever asked has gone away
            return
        if error is None:
            self.future.set_result(answer)
        else:
            self.future.set_exception(error)


class Readers:
    """The threads and the queue to them. `connect` is called once in each thread."""

    def __init__(self, path: str, connect: Callable[[], apsw.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._threads: list[tuple[threading.Thread, asyncio.Future[None]]] = []
        self._unanswered = 0

    async def ask(self, question: Callable[[apsw.Connection], T]) -> T:
        """What `question` finds. It should read with one statement, so that no read transaction is long."""
        asked = _Question(question, self._loop.create_future())
        if self._unanswered >= len(self._threads) and len(self._threads) < _MOST_THREADS:
            self._start_thread()
        self._unanswered += 1
        self._queue.put(asked)
        try:
            answer: T = await asked.future
        finally:
            self._unanswered -= 1
        return answer

    async def stop(self) -> None:
        """Answer what was asked, then end the threads."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        for thread, ended in threads:
            await ended
            thread.join()

    def _start_thread(self) -> None:
        ended: asyncio.Future[None] = self._loop.create_future()
        name = f"stepwell-sqlite-reader-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._run, args=(ended,), name=name, daemon=True)
        self._threads.append((thread, ended))
        thread.start()

    def _run(self, ended: asyncio.Future[None]) -> None:
        connection: apsw.Connection | None = None
        while (question := self._queue.get()) is not None:
            answer, error = None, None
            try:
                connection = connection or self._connect()
                answer = question.put(connection)
            except Exception as reported:  # noqa: BLE001 - it is raised where the question was asked
                error = self._translate(reported, connection)
            self._post(question.settle, answer, error)
            del question, answer, error  # neither lives on while the thread waits
        try:
            if connection is not None:
                connection.close()
        finally:  # whoever closes the store must not wait for ever
            self._post(ended.set_result, None)

    def _translate(self, error: Exception, connection: apsw.Connection | None) -> Exception:
        condition = errors.translate(error, self._path, connection) if isinstance(error, apsw.Error) else None
        if condition is None:
            return error
        condition.__cause__ = error
        return condition

    def _post(self, callback: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *arguments)
