"""Wake-up hints inside one process, for stores to give and readers to wait on. They carry nothing and may be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self


class _Listener:
    __slots__ = ("_hints", "_topic", "_woken")

    def __init__(self, hints: Hints, topic: str) -> None:
        self._hints = hints
        self._topic = topic
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def wait(self, seconds: float) -> bool:
        if not self._woken.is_set():
            self._hints.begin_waiting()
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                return False
            finally:
                self._hints.waiting -= 1
        self._woken.clear()
        return True

    def __enter__(self) -> Self:
        self._hints.add(self._topic, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hints.remove(self._topic, self)


class Hints:
    """The listeners of one process by topic. To be used from the event loop's thread only.

    `waiting` counts the listeners that wait right now, so that a store knows whether looking for foreign changes is
    worth it; `on_wait` is called when the first of them begins.
    """

    def __init__(self, on_wait: Callable[[], None] | None = None) -> None:
        self.waiting = 0
        self._on_wait = on_wait
        self._listeners: dict[str, set[_Listener]] = {}

    def listen(self, topic: str) -> _Listener:
        """A listener for the topic; it hears hints from `with` on."""
        return _Listener(self, topic)

    def give(self, topics: Iterable[str]) -> None:
        """Wake whoever listens to one of the topics."""
        for topic in topics:
            for listener in self._listeners.get(topic, ()):
                listener.wake()

    def give_all(self) -> None:
        """Wake everybody: something changed and nobody knows what."""
        self.give(list(self._listeners))

    def begin_waiting(self) -> None:
        self.waiting += 1
        if self.waiting == 1 and self._on_wait is not None:
            self._on_wait()

    def add(self, topic: str, listener: _Listener) -> None:
        self._listeners.setdefault(topic, set()).add(listener)

    def remove(self, topic: str, listener: _Listener) -> None:
        listeners = self._listeners.get(topic)
        if listeners is not None:
            listeners.discard(listener)
            if not listeners:
                del self._listeners[topic]
