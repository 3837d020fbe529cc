"""The composition root: the one object that every door holds, and the runs it gives. Surfaces import from here, and
only from here.
"""

from stepwell.engine.report import StepReport
from stepwell.plugins import AgentDescription, Problem, Target, check, describe, load_target
from stepwell.ports.store import StoreReport, WorkerInfo
from stepwell.runtime.blocking import run_sync
from stepwell.runtime.composition import Runtime
from stepwell.runtime.run import Artifact, Run, RunResult
from stepwell.runtime.runs import Runs

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
