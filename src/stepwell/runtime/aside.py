"""Starting a process for suspects: runs that were lost again and again are executed there one after the other, so that
one which kills its process kills nobody else's run.

Needs apps that can be imported: those of a script that was started directly cannot, since importing it would start it
again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from stepwell.app import App
from stepwell.engine.quarantine import Aside

_log = logging.getLogger("stepwell.engine")

BEGUN: Final = b"."
"""What the process writes to its pipe once it works. Its exit code says nothing: a suspect may choose it."""
_GRACE: Final = 35.0


def aside_for(apps: Sequence[App[Any]], store_url: str, *, lease_seconds: float) -> Aside | None:
    """How suspects of these apps are executed in a process of their own; `None` where one cannot be imported."""
    targets = [_target_of(app) for app in apps]
    if None in targets or store_url.startswith("memory:"):
        return None
    told = {"targets": targets, "store": store_url, "lease": lease_seconds}
    return lambda: _run(told)


def _target_of(app: App[Any]) -> str | None:
    """What names the app for another process: the module that made it, and its name there."""
    module = sys.modules.get(app.module)
    if app.module == "__main__" or module is None:
        return None
    name = _name_in(module, app)
    file = getattr(module, "__file__", None)
    if name is None or file is None:
        return None
    if "." not in app.module and sum(isinstance(value, App) for value in vars(module).values()) == 1:
        return str(file)
    return f"{app.module}:{name}"


def _name_in(module: ModuleType, app: App[Any]) -> str | None:
    return next((name for name, value in list(vars(module).items()) if value is app), None)


async def _run(told: Mapping[str, Any]) -> None:
    """Start the process and wait for its end. It dies with a suspect that kills it, which is what it is for.

    Raises when it ended before it worked: to start it again would end the same way.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    heard, pipe = os.pipe()
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "stepwell.runtime.suspects",
                json.dumps({**told, "pipe": pipe}),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(pipe,),
            )
        finally:
            os.close(pipe)
        try:
            ended = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        os.set_blocking(heard, False)
        if os.read(heard, 1) != BEGUN:
            raise RuntimeError(f"the process ended before it worked ({ended})")
    finally:
        os.close(heard)
    _log.info("the process for runs that were lost again and again has ended (%s)", ended)


async def _end(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
