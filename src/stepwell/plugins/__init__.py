"""Finds apps and says what their agents are. Called by the runtime, which hands it on to the commands."""

from stepwell.plugins.descriptions import AgentDescription, Problem, check, describe
from stepwell.plugins.targets import Target, load_target

__all__ = ["AgentDescription", "Problem", "Target", "check", "describe", "load_target"]
