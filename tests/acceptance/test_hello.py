"""A newcomer's first program: tested, killed after its step and while it sleeps, and continued."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hello.app import app, hello
from stepwell import InvalidInput, NotFound
from stepwell.testing import runtime
from tests.checkout import ROOT
from tests.docs.pages import blocks

HELLO = ROOT / "examples" / "hello" / "app.py"
OUTPUT = "HELLO, ADA!\n"

# As `stepwell`, but dead at once when the first step's result is on record.
KILLED_AFTER_THE_STEP = """
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


GO_ON = [sys.executable, "-m", "stepwell", "run", str(HELLO), "--continue"]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=60)


async def test_hello() -> None:
    async with runtime(app) as rt:
        assert (await rt.run(hello, "Ada")).output == "HELLO, ADA!"
        with pytest.raises(InvalidInput):
            await rt.run("hello", {"name": "Ada"})
        with pytest.raises(NotFound, match="hello"):
            await rt.run("helo", "Ada")


def test_killed_after_its_step_and_again_while_it_sleeps_it_goes_on_and_greets_once(tmp_path: Path) -> None:
    first = run([sys.executable, "-c", KILLED_AFTER_THE_STEP, "run", str(HELLO), "Ada"], tmp_path)
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "")
    with subprocess.Popen(
        GO_ON, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as second:
        assert second.stderr is not None
        told = []
        for line in second.stderr:
            told.append(line)
            if "waits" in line:  # from here on, it sleeps for ten seconds
                second.kill()
        assert second.wait() == -signal.SIGKILL
        assert any("greet" in line and "remembered" in line for line in told)
    third = run(GO_ON, tmp_path)
    assert (third.returncode, third.stdout) == (0, OUTPUT)
    assert "↺ greet" in third.stderr
    fourth = run(GO_ON, tmp_path)
    assert fourth.returncode == 4
    assert "no run of hello is unfinished" in fourth.stderr


def test_the_readme_shows_this_very_program() -> None:
    shown = [
        block.text for block in blocks((ROOT / "README.md").read_text(encoding="utf-8")) if block.title == "hello.py"
    ]
    assert shown == [HELLO.read_text(encoding="utf-8")]
