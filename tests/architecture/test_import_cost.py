"""Importing Stepwell is cheap: measured beside what importing asyncio costs in the same minute."""

from __future__ import annotations

import subprocess
import sys
import time

ALLOWANCE = 0.060


def seconds(code: str) -> float:
    """The quickest of several fresh interpreters that run the code."""
    times = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - began)
    return min(times)


def test_the_public_names_cost_at_most_twice_asyncio_and_a_little() -> None:
    seconds("from stepwell import App, Context, Runtime, run_sync")  # compiles what is not compiled yet
    bound = 2 * seconds("import asyncio") + ALLOWANCE
    assert seconds("from stepwell import App, Context, Runtime, run_sync") <= bound
