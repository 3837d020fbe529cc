"""An event loop whose time is a number and whose order is drawn from a seed: one thread, one seed, one run.

What it executes belongs to simulated processes. A process may be held up, as by SIGSTOP, or die: then nothing of it is
executed any more, no `finally` and no `except`. Among what is ready the seed decides; callbacks of one process that no
task stands behind keep the order that `call_soon` promises, tasks may overtake each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from heapq import heappop, heappush
from random import Random
from typing import Any, Final, NoReturn

MOST_TURNS: Final = 400_000
"""A simulation that goes on for longer goes round in circles."""
_PAUSE: Final = 0.5
_THROWS: Final = 20


class Process:
    """What belongs together because it lives and dies together. `turns` counts the callbacks that were executed;
    `alarms` are called right after the turns that they name, in nobody's name. `parts` are its threads.
    """

    __slots__ = ("alarms", "dead", "held", "loop", "name", "parts", "ready", "stood_at", "tasks", "turns", "went_on")

    def __init__(self, name: str, loop: SimulatedLoop, part_of: Process | None = None) -> None:
        self.name = name
        self.loop = loop
        self.parts: list[Process] = []
        self.ready: list[asyncio.Handle] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.turns = 0
        self.held = 0
        self.stood_at = self.went_on = -1.0
        self.dead = False
        self.alarms: list[tuple[int, Callable[[], None]]] = []
        if part_of is not None:
            part_of.parts.append(self)

    def after(self, turns: int, alarm: Callable[[], None]) -> None:
        """Call something when so many more callbacks were executed."""
        self.alarms.append((self.turns + turns, alarm))

    def hold(self, *, whole: bool) -> None:
        """Execute nothing of it until `go_on`; with `whole` its threads stand still too."""
        self.stood_at = self.loop.time()
        for each in (self, *(self.parts if whole else ())):
            each.held += 1

    def go_on(self, *, whole: bool) -> None:
        """The end of one `hold`."""
        self.went_on = self.loop.time()
        for each in (self, *(self.parts if whole else ())):
            each.held -= 1

    def at_work_since(self, now: float) -> float:
        """Since when it has been at work on what it does now: a pause that has just ended came in between."""
        return self.stood_at if now - self.went_on < _PAUSE else now

    def die(self) -> None:
        """Never execute anything of it again. Its tasks stay as they are, so that nothing in them is unwound."""
        for each in (self, *self.parts):
            each.dead = True
            each.ready.clear()


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop. With `shuffle=False` everything happens in the order of a real one."""

    def __init__(self, seed: object, *, shuffle: bool = True) -> None:
        super().__init__()
        self._draw = Random(f"order {seed}").random
        self._shuffle = shuffle
        self._now = 0.0
        self._numbers = 0
        self._timers: list[tuple[float, float, int, Process, asyncio.Handle]] = []
        self.world = Process("world", self)
        self.current = self.world
        self.processes = [self.world]
        self.turns = 0
        self.halted: str | None = None
        self.complaints: list[str] = []
        self.set_exception_handler(self._complain)

    # ------------------------------------------------------------ processes

    def add_process(self, name: str, part_of: Process | None = None) -> Process:
        """A new process, or a thread of one."""
        process = Process(name, self, part_of)
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def within(self, process: Process) -> Iterator[None]:
        """What is begun in here belongs to that process."""
        before, self.current = self.current, process
        try:
            yield
        finally:
            self.current = before

    def send(self, process: Process, delay: float, fn: Callable[..., object], *args: Any) -> None:
        """Have a process call something after a delay, unless it is dead by then."""
        with self.within(process):
            if delay > 0:
                self.call_later(delay, fn, *args)
            else:
                self.call_soon(fn, *args)

    def halt(self, why: str) -> None:
        """Execute nothing more: what was to be found out is known."""
        self.halted = self.halted or why
        self.stop()

    # ------------------------------------------------------------ what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]  # the types of the arguments are the caller's affair
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.current.dead:
            self.current.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._numbers += 1
        chance = self._draw() if self._shuffle else 0.0
        heappush(self._timers, (max(when, self._now), chance, self._numbers, self.current, handle))
        return handle

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # tasks of the dead are meant to be pending
        self.current.tasks.append(task)
        return task

    def begin(self, coro: Coroutine[Any, Any, None]) -> None:
        """A task of the process that is executing, which nobody awaits."""
        self.create_task(coro)  # type: ignore[unused-awaitable]  # the process keeps it

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("there is one thread: nothing runs in an executor")

    def _run_once(self) -> None:
        ready = [process for process in self.processes if process.ready and not process.held]
        if not ready:
            if not self._pass_time():
                self.halt("nothing can ever happen any more")
            return
        self.turns += 1
        if self.turns > MOST_TURNS:
            self.halt("it goes round in circles")
            return
        process = ready[int(self._draw() * len(ready))] if self._shuffle else ready[0]
        handle = self._take(process.ready)
        if handle._cancelled:
            return
        self.current = process
        process.turns += 1
        handle._run()
        self.current = self.world
        if process.alarms and not process.dead:
            self._ring(process)

    @staticmethod
    def _ring(process: Process) -> None:
        due = [alarm for turn, alarm in process.alarms if turn <= process.turns]
        if due:
            process.alarms = [each for each in process.alarms if each[0] > process.turns]
            for alarm in due:
                alarm()

    def _take(self, ready: list[asyncio.Handle]) -> asyncio.Handle:
        """Any of the tasks that are ready, or the first callback behind which no task stands."""
        if not self._shuffle or len(ready) == 1:
            return ready.pop(0)
        choice = 0
        for choice, handle in enumerate(ready):  # noqa: B007 - where the loop ends is what counts
            callback = handle._callback  # type: ignore[attr-defined]
            if not isinstance(getattr(callback, "__self__", None), asyncio.Task):
                break
        return ready.pop(int(self._draw() * (choice + 1)))

    def _pass_time(self) -> bool:
        """Go to the next moment at which something is to happen. False when there is none."""
        timers = self._timers
        while timers:
            when, _, _, process, handle = heappop(timers)
            if process.dead or handle._cancelled:
                continue
            self._now = max(self._now, when)
            process.ready.append(handle)
            return True
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def _process_events(self, event_list: object) -> None:
        """There are none from outside."""

    def _write_to_self(self) -> None:
        """Nobody needs to be woken."""

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception in a callback is a bug of whoever set it; one that a task raised and nobody asked for is not."""
        if "handle" in context:
            self.complaints.append(f"{context['message']}: {context.get('exception')!r}")

    # ------------------------------------------------------------ the end

    def simulate(self, main: Coroutine[Any, Any, None]) -> None:
        """Execute `main` to its end, or until something halts the loop. Then everything is thrown away, unheard."""
        asyncio.set_event_loop(None)
        try:
            task = self.create_task(main)
            task.add_done_callback(lambda _: self.stop())
            self.run_forever()
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        finally:
            self._bury()
            self.close()

    def _bury(self) -> None:
        """Close what the tasks were in the middle of, here, where it can reach nothing and nobody listens."""
        for process in self.processes:
            process.dead = True
            tasks, process.tasks = process.tasks, []
            for task in tasks:
                coroutine = task.get_coro()
                for _ in range(_THROWS):
                    try:
                        coroutine.close()
                    except BaseException:  # noqa: BLE001 - whatever its `finally` blocks attempt without a loop
                        continue
                    break
            process.ready.clear()
        self._timers.clear()
