"""`run_sync`: for scripts that have no event loop, and for code inside a loop that must block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from typing_extensions import TypeVar

from stepwell.app import Agent
from stepwell.domain.errors import Misuse, Seconds
from stepwell.runtime.composition import Runtime
from stepwell.runtime.result import RunResult

I = TypeVar("I", default=str)  # noqa: E741  (an agent's input)
O = TypeVar("O", default=str)  # noqa: E741  (an agent's output)
T = TypeVar("T")


def run_sync(
    agent: Agent[I, O],
    input: I = None,  # type: ignore[assignment]  # stands for "not given": agents without input take None
    /,
    *,
    store: str | None = None,
    timeout: Seconds | None = None,
) -> RunResult[O]:
    """Run an agent to its end and return how it ended; blocks, also inside a running event loop (in a thread of its
    own then).

    Executes this run only, on the store that `Runtime` would find. Raises what `Runtime.run` raises.
    """
    app = agent.app
    if app is None:
        raise Misuse(f"agent {agent.name!r} belongs to no app", code="agent.no_app", hint="declare it with @app.agent")

    async def main() -> RunResult[O]:
        async with Runtime(app, store=store, serve="own") as runtime:
            return await runtime.run(agent, input, timeout=timeout)

    return _block_on(main)


def _block_on(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    outcome: list[T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread as it is
            failure.append(error)

    thread = threading.Thread(target=target, name="stepwell-run-sync")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
