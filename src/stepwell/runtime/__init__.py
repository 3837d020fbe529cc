"""The composition root: the one object that every door holds, and the runs it gives.

Surfaces import from here, and only from here. What finds and describes apps is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stepwell.engine.report import StepReport
from stepwell.ports.store import LaneInfo, StoreReport, WorkerInfo
from stepwell.runtime.blocking import run_sync
from stepwell.runtime.composition import Runtime
from stepwell.runtime.groups import AgentInfo, Agents, Queues, Workers
from stepwell.runtime.questions import Question, Questions
from stepwell.runtime.result import Artifact, RunResult
from stepwell.runtime.run import Run
from stepwell.runtime.runs import Runs
from stepwell.runtime.sessions import Sessions, StoredSession, StoredState
from stepwell.runtime.text import TextJoin, TextPart

if TYPE_CHECKING:
    from stepwell.plugins import AgentDescription, Problem, Target, check, describe, load_target

__all__ = [
    "AgentDescription",
    "AgentInfo",
    "Agents",
    "Artifact",
    "LaneInfo",
    "Problem",
    "Question",
    "Questions",
    "Queues",
    "Run",
    "RunResult",
    "Runs",
    "Runtime",
    "Sessions",
    "StepReport",
    "StoreReport",
    "StoredSession",
    "StoredState",
    "Target",
    "TextJoin",
    "TextPart",
    "WorkerInfo",
    "Workers",
    "check",
    "describe",
    "load_target",
    "run_sync",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'stepwell.runtime' has no attribute {name!r}")
    return getattr(import_module("stepwell.plugins"), name)
