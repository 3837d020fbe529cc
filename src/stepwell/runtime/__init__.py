"""The composition root: the one object that every door holds, and the runs it gives.

Surfaces import from here, and only from here. What finds and describes apps is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stepwell.engine.report import StepReport
from stepwell.ports.store import StoreReport, WorkerInfo
from stepwell.runtime.blocking import run_sync
from stepwell.runtime.composition import Runtime
from stepwell.runtime.run import Artifact, Run, RunResult
from stepwell.runtime.runs import Runs

if TYPE_CHECKING:
    from stepwell.plugins import AgentDescription, Problem, Target, check, describe, load_target

__all__ = [
    "AgentDescription",
    "Artifact",
    "Problem",
    "Run",
    "RunResult",
    "Runs",
    "Runtime",
    "StepReport",
    "StoreReport",
    "Target",
    "WorkerInfo",
    "check",
    "describe",
    "load_target",
    "run_sync",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'stepwell.runtime' has no attribute {name!r}")
    return getattr(import_module("stepwell.plugins"), name)
