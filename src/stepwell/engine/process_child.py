"""The other end of a step that runs in its own interpreter: one request on stdin, one answer on stdout, then it ends.

Started as `python -m stepwell.engine.process_child`. What the step prints goes to stderr. The process dies with its
parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import importlib
import importlib.util
import inspect
import json
import os
import signal
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, Final

from stepwell.codec import codec_for
from stepwell.domain.errors import Fail
from stepwell.domain.retry import seconds
from stepwell.domain.values import dumps
from stepwell.engine.failure import describe_error
from stepwell.engine.offload import argument_types

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Serve one request."""
    _die_with_parent()
    request = json.load(sys.stdin)
    if os.getppid() != request["parent"]:  # it died before that took effect: whoever takes over runs the step himself
        os._exit(1)
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        answer = {"value": _call(request)}
    except BaseException as error:  # noqa: BLE001 - every exception of the step is the answer, SystemExit included
        answer = {"error": _told(error)}
    answer_to.write(dumps(answer))
    answer_to.flush()
    os._exit(0)  # threads and exit hooks of the step's modules must not delay the answer


def _told(error: BaseException) -> dict[str, Any]:
    info = describe_error(error, code="step.error")
    told: dict[str, Any] = {"type": info.type, "message": info.message, "frames": list(info.traceback)}
    if isinstance(error, Fail):
        after = None if error.retry_after is None else seconds(error.retry_after)
        told["fail"] = {"code": info.code, "retryable": info.retryable, "retry_after": after}
    return told


def _call(request: dict[str, Any]) -> Any:
    sys.path[:] = request["path"]
    fn = _find(request)
    annotated = argument_types(fn, len(request["args"]))
    args = [
        codec_for(annotated[n]).decode(dumps(value), f"argument {n + 1}") for n, value in enumerate(request["args"])
    ]
    value = fn(*args)
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    returned = typing.get_type_hints(fn, include_extras=True).get("return", Any)
    return json.loads(codec_for(returned).encode(value, "result"))


def _find(request: dict[str, Any]) -> Callable[..., Any]:
    module = _import(request["module"], request.get("file"))
    found = functools.reduce(getattr, request["name"].split("."), module)
    return typing.cast("Callable[..., Any]", found)


def _import(name: str, file: str | None) -> types.ModuleType:
    """The module as the step's process knows it: by its name if that leads to the same file, else from the file."""
    if file is None or (name != "__main__" and _leads_to(name, file)):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("__stepwell_main__" if name == "__main__" else name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _leads_to(name: str, file: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # not importable by that name at all
        return False
    return spec is not None and spec.origin is not None and os.path.realpath(spec.origin) == os.path.realpath(file)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
