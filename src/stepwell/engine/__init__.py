"""Runs any Runnable: submission, worker, executor, replay. Knows no kind of agent and no database."""
