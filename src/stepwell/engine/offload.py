"""Runs plain functions off the event loop: in daemon threads, or in a spawned interpreter that can be killed.

Threads share the interpreter's lock with everything else: what computes for long belongs in a process. A thread cannot
be stopped; when its step times out, its result is dropped and the thread serves others once it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import json
import os
import queue
import sys
import threading
import typing
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from stepwell.codec import codec_for
from stepwell.domain.errors import Fail, Misuse, NotExecuted
from stepwell.domain.values import dumps

_MAX_THREADS: Final = 256
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_CHILD: Final = "stepwell.engine.process_child"


_Delivery: TypeAlias = Callable[[], None]
_Work: TypeAlias = Callable[[], _Delivery]


class RemoteError(Exception):
    """An exception that a step raised in another interpreter. `type_name` is its type's name there."""

    def __init__(self, type_name: str, message: str, frames: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.frames = frames


class Offload:
    """Threads that are made when needed and reused. Daemons: a step that never returns keeps no process alive."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    async def in_thread(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `fn` in a thread and return what it returns. A cancelled caller leaves the thread to itself."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def deliver(error: BaseException | None, value: Any) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        def work() -> _Delivery:
            error: BaseException | None = None
            value: Any = None
            if future.done():  # the step was given up before a thread was free: it must not happen now
                return lambda: None
            try:
                value = context.run(fn, *args, **kwargs)
            except StopIteration as stop:  # a future cannot carry it
                error = RuntimeError(f"the step raised {stop!r}")
            except BaseException as raised:  # noqa: BLE001 - it is the step's error, SystemExit included
                error = raised
            return lambda: _tell(loop, deliver, error, value)

        self._submit(work)
        return await future

    def _submit(self, work: _Work) -> None:
        with self._lock:
            if self._idle == 0 and self._threads < _MAX_THREADS:
                self._threads += 1
                threading.Thread(target=self._serve, name=f"stepwell-step-{self._threads}", daemon=True).start()
            else:
                self._idle -= 1
        self._work.put(work)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            deliver = work()
            with self._lock:
                self._idle += 1  # before anybody is told: who goes on at once finds this thread free
            deliver()
            del work, deliver  # an idle thread keeps nothing alive

    def close(self) -> None:
        """Let idle threads go."""
        with self._lock:
            for _ in range(self._threads):
                self._work.put(None)


def _tell(loop: asyncio.AbstractEventLoop, deliver: Callable[..., None], *outcome: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile: nobody waits for the result any more
        loop.call_soon_threadsafe(deliver, *outcome)


async def in_process(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a module-level function in a fresh interpreter. Cancelling the caller kills it.

    Raises `RemoteError` for its exceptions.
    """
    address = _address(fn)
    annotated = argument_types(fn, len(args))
    texts = [codec_for(annotated[n]).encode(arg, f"argument {n + 1}") for n, arg in enumerate(args)]
    request = {
        "path": [entry or os.getcwd() for entry in sys.path],
        "args": [json.loads(text) for text in texts],
        "parent": os.getpid(),
        **address,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _CHILD,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate(dumps(request).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0 or not output:
        raise RemoteError("ProcessDied", f"the step's process ended with {_ending(process.returncode)} and no result")
    answer = json.loads(output)
    if "error" in answer:
        raise _as_raised(answer["error"])
    return codec_for(_return_annotation(fn)).decode(dumps(answer["value"]), "result")


def _as_raised(error: dict[str, Any]) -> Exception:
    """What the step raised there: the two exceptions that are addressed to us as themselves."""
    if "fail" in error:
        return Fail(error["message"], **error["fail"])
    if error["type"] == NotExecuted.__name__:
        return NotExecuted(error["message"])
    return RemoteError(error["type"], error["message"], tuple(error["frames"]))


def _address(fn: Callable[..., Any]) -> dict[str, str]:
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "<unknown>")
    bound_to = getattr(fn, "__self__", None)
    if module is None or "<" in name or not (bound_to is None or inspect.ismodule(bound_to)):
        raise Misuse(
            f'{name} cannot run with run_in="process": another interpreter could not find it',
            code="step.not_importable",
            hint="use a function defined at the top of a module",
        )
    address = {"module": module, "name": name}
    file = getattr(sys.modules.get(module), "__file__", None)
    if file:  # as a program, or under a name of our own, only the file says where it is
        address["file"] = os.path.abspath(file)
    return address


def argument_types(fn: Callable[..., Any], count: int) -> list[Any]:
    """What the first `count` arguments of a function are annotated with; `Any` where nothing says it."""
    hints = typing.get_type_hints(fn, include_extras=True)
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except ValueError:  # some builtins have no signature
        parameters = []
    found = [hints.get(parameter.name, Any) for parameter in parameters if parameter.kind in _POSITIONAL]
    rest = next((hints.get(p.name, Any) for p in parameters if p.kind is p.VAR_POSITIONAL), Any)
    return [*found, *[rest] * (count - len(found))][:count]


def _return_annotation(fn: Callable[..., Any]) -> Any:
    return typing.get_type_hints(fn, include_extras=True).get("return", Any)


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
