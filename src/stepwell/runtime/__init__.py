"""The composition root: the one object that every door holds, and the runs it gives. Surfaces import from here."""

from __future__ import annotations

from stepwell.runtime.blocking import run_sync as run_sync
from stepwell.runtime.composition import Runtime as Runtime
from stepwell.runtime.run import Artifact as Artifact
from stepwell.runtime.run import Run as Run
from stepwell.runtime.run import RunResult as RunResult
from stepwell.runtime.runs import Runs as Runs

__all__ = ["Artifact", "Run", "RunResult", "Runs", "Runtime", "run_sync"]
