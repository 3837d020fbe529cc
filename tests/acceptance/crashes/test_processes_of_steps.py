"""Processes that a worker starts for its steps, when the worker dies or the system gives it no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("processes.py")
PATIENCE = 60.0


@contextmanager
def started(folder: Path, mode: str) -> Iterator[subprocess.Popen[str]]:
    """The program in a process of its own."""
    command = [sys.executable, str(PROGRAM), mode, f"sqlite:///{folder}/data.db", str(folder / "step")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"  # nobody may have asked for its end yet
    except OSError:
        return False


def number_in(file: Path) -> int:
    """What the step wrote, as soon as it is there."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        if file.exists() and (text := file.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.01)
    pytest.fail(f"no step began: {file}")


def test_a_step_in_a_process_of_its_own_dies_with_its_worker(tmp_path: Path) -> None:
    with started(tmp_path, "endless") as worker:
        step = number_in(tmp_path / "step")
        assert step != worker.pid
        assert is_alive(step)
        worker.send_signal(signal.SIGKILL)
        worker.wait(PATIENCE)
        limit = time.monotonic() + PATIENCE
        while is_alive(step):
            assert time.monotonic() < limit, "the process of the step lives on"
            time.sleep(0.01)


def test_without_a_free_descriptor_a_process_cannot_be_started_and_the_worker_stays(tmp_path: Path) -> None:
    """The step fails with what the system says and is tried again; the store goes on writing meanwhile."""
    with started(tmp_path, "exhausted") as worker:
        output, said = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0, said
    assert output.split() == ["OSError", "written", "done"]
