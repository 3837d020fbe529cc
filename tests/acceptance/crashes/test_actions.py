"""Other things than death at a crash point: an error of the store, a process that stands still, one that sleeps too
long. The run goes on, here or elsewhere, and whoever was too late writes nothing.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import timeit
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

import stepwell
from stepwell import App, InvalidDefinition, Runtime
from stepwell.ports import crash_point
from stepwell.ports.crash_point import CrashPoint
from stepwell.testing import crash
from tests.acceptance.crashes.test_kill_at_every_point import EXPECTED, WORKLOAD, check_promises, finish, killed, run

REFUSED = [
    *("submit.after_commit", "claim.before_commit", "claim.after_commit", "commit.before_commit:3"),
    *("commit.after_commit:3", "outcome.before_commit", "outcome.after_commit"),
]
"""Writes that fail: before, where nothing was written, and after, where nobody learns that it was."""
TAKEN_OVER = [
    *("executor.after_claim", "step.after_function:4", "commit.after_commit:3", "executor.after_agent"),
]
"""Points at which the process holds a run and no lock of the file."""


def acting(point: str) -> str:
    """The point with the number of the pass at which it acts."""
    return point if ":" in point else f"{point}:1"


@contextmanager
def begun(folder: Path, crash_at: str) -> Iterator[subprocess.Popen[str]]:
    """The workload in a process with the point armed, killed in the end if it has not ended."""
    command = [sys.executable, "-m", "stepwell.testing.crash", crash_at, str(WORKLOAD)]
    command += ["all", f"sqlite:///{folder}/kill.db", str(folder / "effects")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("point", REFUSED)
def test_an_error_of_the_store_leaves_the_run_to_be_taken_up_again(point: str, tmp_path: Path) -> None:
    done = run("all", tmp_path, f"{acting(point)}:raise=StoreUnavailable")
    assert not killed(done)
    if done.returncode != 0:  # whoever asked was told, with the code of the error
        assert "StoreUnavailable" in done.stderr
    assert finish(tmp_path)["output"] == EXPECTED
    check_promises(tmp_path, kills=1)


@pytest.mark.parametrize("point", ["executor.after_claim", "executor.after_agent"])
def test_a_defect_in_the_engine_leaves_the_run_to_be_taken_up_again(point: str, tmp_path: Path) -> None:
    done = run("all", tmp_path, f"{point}:1:raise")
    assert "Crashed: raised at" in done.stderr
    assert finish(tmp_path)["output"] == EXPECTED
    check_promises(tmp_path, kills=1)


@pytest.mark.parametrize("point", TAKEN_OVER)
def test_what_a_stopped_process_held_another_takes_over_and_the_first_is_fenced(point: str, tmp_path: Path) -> None:
    with begun(tmp_path, f"{acting(point)}:stop") as stopped:
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
        assert finish(tmp_path)["output"] == EXPECTED
        before = (tmp_path / "effects").read_text()
        journal = facts(tmp_path)
        stopped.send_signal(signal.SIGCONT)
        output, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 0, said
    assert json.loads(output)["output"] == EXPECTED  # it tells what the other made of the run
    assert facts(tmp_path) == journal
    late = Counter((tmp_path / "effects").read_text().split()) - Counter(before.split())
    assert late.total() <= 1, "at most the step in whose middle it was stopped"
    check_promises(tmp_path, kills=1)


@pytest.mark.parametrize("point", ["step.before_function", "commit.after_commit:3"])
def test_who_sleeps_past_the_lease_is_fenced(point: str, tmp_path: Path) -> None:
    with begun(tmp_path, f"{acting(point)}:sleep=2.5") as sleeper:  # the lease is 1 s
        while not (tmp_path / "kill.db").exists() or not facts(tmp_path):
            assert sleeper.poll() is None
            time.sleep(0.01)
        assert finish(tmp_path)["output"] == EXPECTED
        output, said = sleeper.communicate(timeout=60)
    assert sleeper.returncode == 0, said
    assert json.loads(output)["output"] == EXPECTED
    check_promises(tmp_path, kills=1)


def facts(folder: Path) -> int:
    """How many facts the journals of the store hold by now."""
    with closing(apsw.Connection(str(folder / "kill.db"), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        try:
            ((count,),) = db.execute("select count(*) from journal")
        except apsw.Error:  # it is being made
            return 0
        return int(count)


# ------------------------------------------------------------ arming


@pytest.fixture
def point() -> Iterator[CrashPoint]:
    name = "test.boundary"
    yield CrashPoint(name)
    crash.disarm()
    crash_point._declared.discard(name)


def test_a_point_acts_at_the_pass_that_was_named_and_once(point: CrashPoint) -> None:
    armed = crash.arm("test.boundary:2:raise")
    point()
    with pytest.raises(crash.Crashed):
        point()
    point()
    assert armed.passes == 3


def test_a_point_raises_the_error_that_was_named(point: CrashPoint) -> None:
    crash.arm("test.boundary:1:raise=StoreFull")
    with pytest.raises(Exception, match=r"raised at test\.boundary") as raised:
        point()
    assert type(raised.value).__name__ == "StoreFull"


@pytest.mark.parametrize("action", ["raise=Nothing", "raise=Final", "raise=", "explode", "sleep=-1", "sleep=inf"])
def test_an_action_that_makes_no_sense_is_refused(point: CrashPoint, action: str) -> None:
    with pytest.raises(ValueError, match=r"none of Stepwell's errors|unknown action|no time to sleep"):
        crash.arm(f"test.boundary:1:{action}")
    assert not crash_point.is_armed()
    point()


NONSENSE = {
    "commit.before_comit": "there is no crash point 'commit.before_comit': did you mean commit.before_commit?",
    "": "there is no crash point '': there are ",
    "commit.before_commit:0": "'0' is no pass of a crash point",
    "commit.before_commit:kill": "'kill' is no pass of a crash point",
    "commit.before_commit:1:explode": "unknown action 'explode'",
    "commit.before_commit:1:kill=9": "unknown action 'kill=9'",
    "commit.before_commit:1:sleep": "'' is no time to sleep",
    "commit.before_commit:1:raise=Nothing": "'Nothing' is none of Stepwell's errors",
}


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize("spec", NONSENSE)
def test_a_program_is_not_begun_with_what_arms_nothing(
    spec: str, variable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused("-" if variable else spec, tmp_path, monkeypatch, capsys, variable=spec if variable else None)
    assert (NONSENSE[spec] if spec or not variable else "STEPWELL_CRASH_POINT, which is not set") in told


def test_a_program_is_not_begun_when_the_variable_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused("-", tmp_path, monkeypatch, capsys)
    assert "- reads the point from STEPWELL_CRASH_POINT, which is not set" in told


def test_a_program_must_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["crash", "commit.before_commit"])
    with pytest.raises(SystemExit) as ended:
        crash.main()
    assert ended.value.code == 2
    assert "a point and a program are needed; use: python -m" in capsys.readouterr().err


def refused(
    spec: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    variable: str | None = None,
) -> str:
    """What is said when a program is to be begun with this."""
    program = folder / "program.py"
    program.write_text("raise AssertionError('it was begun')\n")
    monkeypatch.delenv(crash_point.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(crash_point.VARIABLE, variable)
    monkeypatch.setattr(sys, "argv", ["crash", spec, str(program)])
    with pytest.raises(SystemExit) as ended:
        crash.main()
    assert ended.value.code == 2
    assert not crash_point.is_armed()
    return capsys.readouterr().err


def test_every_point_of_the_product_is_known_to_who_arms_one() -> None:
    command = "from stepwell.testing import crash; crash._declared('claim.after_commit')"
    command += "; from stepwell.ports import crash_point; print(*crash_point.declared())"
    told = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=60, check=True)
    sources = [path.read_text(encoding="utf-8") for path in Path(stepwell.__file__).parent.rglob("*.py")]
    named = {name for text in sources for name in re.findall(r'CrashPoint\("([a-z_.]+)"\)', text)}
    assert len(named) > 20
    assert named <= set(told.stdout.split())


async def test_a_program_that_is_not_a_test_refuses_to_work_while_a_point_is_armed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(crash_point.VARIABLE, "commit.before_commit")
    with pytest.raises(InvalidDefinition) as raised:
        await Runtime(App("earnest"), store="memory://").__aenter__()
    assert raised.value.code == "config.crash_point"
    assert "STEPWELL_CRASH_POINT is set" in str(raised.value)


def test_a_command_refuses_too_and_a_test_may_use_the_variable(tmp_path: Path) -> None:
    environment = os.environ | {crash_point.VARIABLE: "step.before_function"}
    program = tmp_path / "app.py"
    program.write_text(
        "from stepwell import App, Context\n\napp = App('app')\n\n\ndef work() -> None: ...\n\n\n"
        "@app.agent\nasync def agent(ctx: Context) -> None:\n    await ctx.step(work)\n"
    )
    start = [sys.executable, "-m", "stepwell", "run", "app.py", "--store", f"sqlite:///{tmp_path}/data.db"]
    refused = subprocess.run(start, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 3
    assert "error[config.crash_point]" in refused.stderr
    assert not (tmp_path / "data.db").exists()
    command = [sys.executable, "-m", "stepwell.testing.crash", "-", str(WORKLOAD)]
    command += ["all", f"sqlite:///{tmp_path}/kill.db", str(tmp_path / "effects")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert killed(done)


def test_a_point_that_is_not_armed_costs_about_as_much_as_a_call(point: CrashPoint) -> None:
    class Nothing:
        __slots__ = ()

        def __call__(self) -> None:
            if _never is not None:
                raise AssertionError

    rounds = 20_000
    passed = min(timeit.repeat(point, number=rounds, repeat=9)) / rounds
    called = min(timeit.repeat(Nothing(), number=rounds, repeat=9)) / rounds
    print(f"a crash point that is not armed: {passed * 1e9:.0f} ns; an empty call: {called * 1e9:.0f} ns")
    assert passed < 3 * called


_never: object = None
