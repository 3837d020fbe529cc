"""A newcomer's first program: killed inside a step and between two, and continued. Stdout holds its output only."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.checkout import ROOT
from tests.docs.pages import blocks

HELLO = ROOT / "examples" / "hello" / "app.py"
OUTPUT = "*** Hello, Ada! ***\n    Stepwell\n"

# As `stepwell`, but dead at once when the first step's result is on record.
KILLED_BETWEEN_STEPS = """
import os, signal
from stepwell.cli import main
from stepwell.ports import crash_point

def die(point):
    if point == "step.after_record":
        os.kill(os.getpid(), signal.SIGKILL)

crash_point.install(die)
main()
"""


def environment(folder: Path) -> dict[str, str]:
    """Settings of a reader who keeps the store in a folder."""
    return os.environ | {"STEPWELL_STORE": f"sqlite:///{folder / 'hello.db'}", "NO_COLOR": "1"}


def go_on(folder: Path) -> subprocess.CompletedProcess[str]:
    """`stepwell run app.py --continue`."""
    command = [sys.executable, "-m", "stepwell", "run", str(HELLO), "--continue"]
    return subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=60)


def status_of(progress: str) -> dict[str, str]:
    """What the progress says of each step: the first word behind its name."""
    lines = [line.split() for line in progress.splitlines()]
    marks = {"✓": "done", "↺": "remembered"}
    return {line[1]: marks[line[0]] for line in lines if line[:1] and line[0] in marks}


def test_killed_inside_a_step_it_goes_on_with_that_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stepwell", "run", str(HELLO), "Ada"]
    with subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "✓ greet" in line:  # from here on, `decorate` takes four seconds
                first.kill()
        assert first.wait() == -signal.SIGKILL
    second = go_on(tmp_path)
    assert (second.returncode, second.stdout) == (0, OUTPUT)
    assert status_of(second.stderr) == {"greet": "remembered", "decorate": "done", "sign": "done"}


def test_killed_between_two_steps_it_goes_on_with_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_BETWEEN_STEPS, "run", str(HELLO), "Ada"]
    first = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "")
    second = go_on(tmp_path)
    assert (second.returncode, second.stdout) == (0, OUTPUT)
    assert status_of(second.stderr) == {"greet": "remembered", "decorate": "done", "sign": "done"}
    third = go_on(tmp_path)
    assert third.returncode == 4
    assert "no run of hello is unfinished" in third.stderr


def test_the_readme_shows_this_very_program() -> None:
    shown = [
        block.text for block in blocks((ROOT / "README.md").read_text(encoding="utf-8")) if block.title == "hello.py"
    ]
    assert shown == [HELLO.read_text(encoding="utf-8")]
