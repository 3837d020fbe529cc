"""The commands beside `run`, in real processes: worker, runs, doctor, migrate, init, and how soon they answer."""

import json
import re
import signal
import subprocess
import sys
import time

import apsw
import pytest

from tests.acceptance.cli.conftest import Project, wait_until

FLOCK = '''
import pathlib
import time

from stepwell import App, Context, Retry

app = App("flock")


def wait_for(name: str) -> str:
    with open("effects.txt", "a") as file:
        file.write(name + "\\n")
    while not pathlib.Path(name).exists():
        time.sleep(0.01)
    return name


@app.agent
async def patient(ctx: Context, name: str) -> str:
    """Wait for a file."""
    return await ctx.step(wait_for, name)


def divide(a: int, b: int) -> float:
    return a / b


@app.agent
async def reporter(ctx: Context, divisor: int) -> float:
    await ctx.artifact("report.md", "# Report\\n")
    await ctx.artifact("data.bin", bytes(range(256)))
    return await ctx.step(divide, 1, divisor)


@app.agent(retry=Retry(2, first_delay=0))
async def doomed(ctx: Context) -> None:
    raise ValueError("never")
'''


@pytest.fixture
def flock(project: Project) -> Project:
    project.write("app.py", FLOCK)
    return project


def runs_of(project: Project, *filters: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(project.stepwell("runs", "list", "--json", *filters).out)
    return found


# ---------------------------------------------------------------- worker


def test_a_worker_executes_what_others_submitted_and_drains_on_sigterm(flock: Project) -> None:
    flock.write("a", "")
    for name in ("a", "b"):
        flock.stepwell("run", "patient", name, "--detach")
    worker = flock.start("worker")
    worker.shows("working on patient, reporter, doomed; capacity 16")
    worker.reaches(lambda: "b" in flock.read("effects.txt"))
    worker.signal(signal.SIGTERM)
    worker.shows("draining")
    flock.stepwell("run", "patient", "c", "--detach")
    flock.write("b", "")
    assert worker.ends().code == 0
    assert sorted(str(run["status"]) for run in runs_of(flock)) == ["queued", "succeeded", "succeeded"]


def test_a_second_signal_ends_a_worker_at_once_and_its_run_is_taken_up_by_another(flock: Project) -> None:
    flock.stepwell("run", "patient", "a", "--detach")
    first = flock.start("worker", "app.py", "--capacity", "1")
    first.reaches(lambda: "a" in flock.read("effects.txt"))
    first.signal(signal.SIGINT)
    first.shows("draining")
    first.signal(signal.SIGINT)
    assert first.ends().code == 130
    flock.write("a", "")
    second = flock.start("worker")
    second.reaches(lambda: [run["status"] for run in runs_of(flock)] == ["succeeded"])
    second.signal(signal.SIGTERM)
    assert second.ends().code == 0


def test_the_capacity_bounds_what_a_worker_does_at_once(flock: Project) -> None:
    for name in ("a", "b", "c"):
        flock.stepwell("run", "patient", name, "--detach")
    worker = flock.start("worker", "--capacity", "2")
    worker.reaches(lambda: len(flock.read("effects.txt").split()) == 2)
    first, _ = flock.read("effects.txt").split()
    assert len(runs_of(flock, "--status", "running")) == 2
    flock.write(first, "")
    worker.reaches(lambda: len(flock.read("effects.txt").split()) == 3)
    for name in "abc":
        flock.write(name, "")
    worker.signal(signal.SIGTERM)
    assert worker.ends().code == 0


# ---------------------------------------------------------------- runs


@pytest.fixture
def reports(flock: Project) -> Project:
    """A run that succeeded and one that failed."""
    assert flock.stepwell("run", "reporter", "2").code == 0
    assert flock.stepwell("run", "reporter", "0").code == 1
    return flock


def test_runs_are_listed_newest_first_and_filtered(reports: Project) -> None:
    assert [run["status"] for run in runs_of(reports)] == ["failed", "succeeded"]
    assert [run["status"] for run in runs_of(reports, "--limit", "1")] == ["failed"]
    assert [run["status"] for run in runs_of(reports, "--status", "succeeded")] == ["succeeded"]
    assert runs_of(reports, "--agent", "patient") == []
    assert runs_of(reports, "--dead") == []
    lines = reports.stepwell("runs", "list").out.splitlines()
    assert re.split(r"\s{2,}", lines[0]) == ["run", "agent", "status", "started", "reason"]
    assert re.match(r"…[0-9a-z]{6}  reporter  failed     \d+ s ago  step\.error$", lines[1])


def test_runs_that_were_given_up_are_listed_apart(reports: Project) -> None:
    failed = reports.stepwell("run", "doomed")
    assert failed.code == 1
    assert "given up after 2 attempts" in failed.err
    assert [(run["agent"], run["dead"]) for run in runs_of(reports, "--dead")] == [("doomed", True)]
    assert len(runs_of(reports, "--agent", "doomed")) == 1
    assert "failed (dead)" in reports.stepwell("runs", "list", "--dead").out


def test_every_command_looks_at_the_store_that_it_is_told(reports: Project) -> None:
    for words in (("run", "reporter", "4"), ("runs", "list"), ("runs", "show", "last"), ("doctor",), ("migrate",)):
        done = reports.stepwell(*words, "--store", "sqlite:///other.db")
        assert done.code == 0
    assert len(runs_of(reports, "--store", "sqlite:///other.db")) == 1
    by_environment = reports.stepwell("runs", "list", "--json", environment={"STEPWELL_STORE": "sqlite:///other.db"})
    assert len(json.loads(by_environment.out)) == 1
    assert len(runs_of(reports)) == 2


def test_a_worker_works_on_the_store_that_it_is_told(flock: Project) -> None:
    flock.write("a", "")
    flock.stepwell("run", "patient", "a", "--detach", "--store", "sqlite:///other.db")
    worker = flock.start("worker", "--store", "sqlite:///other.db")
    worker.reaches(lambda: [run["status"] for run in runs_of(flock, "--store", "sqlite:///other.db")] == ["succeeded"])
    worker.signal(signal.SIGTERM)
    assert worker.ends().code == 0


def test_an_empty_listing_says_so_on_stderr(reports: Project) -> None:
    done = reports.stepwell("runs", "list", "--agent", "patient")
    assert (done.code, done.out, done.err) == (0, "", "no runs match\n")


def test_a_run_is_shown_with_all_that_is_known_of_it(reports: Project) -> None:
    done = reports.stepwell("runs", "show", "last")
    assert done.code == 0
    for part in (
        "agent    reporter, version 1",
        "status   failed (step.error)",
        "input    0",
        "✗ divide    ZeroDivisionError: division by zero",
        "report.md",
        "error step.error",
        "  app.py:32 in reporter\n    return await ctx.step(divide, 1, divisor)\n",
        "  app.py:25 in divide\n    return a / b\n",
    ):
        assert part in done.out, done.out
    assert "stepwell/engine" not in done.out


def test_a_run_is_found_by_its_id_and_by_its_ending(reports: Project) -> None:
    run_id = str(runs_of(reports)[1]["id"])
    for word in (run_id, run_id[-6:], run_id[-4:]):
        shown = json.loads(reports.stepwell("runs", "show", word, "--json").out)
        assert shown["id"] == run_id
    assert shown["output"] == 0.5
    assert [step["status"] for step in shown["steps"]] == ["done"]
    assert [kept["name"] for kept in shown["artifacts"]] == ["report.md", "data.bin"]


@pytest.mark.parametrize("word", ["zzzzzz", "abc", "run_00000000000000000000000000"])
def test_a_run_that_is_not_there(reports: Project, word: str) -> None:
    done = reports.stepwell("runs", "show", word)
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith("error[run.unknown]: ")


def test_events_are_listed_and_counted_from_a_number(reports: Project) -> None:
    lines = reports.stepwell("runs", "events", "last").out.splitlines()
    assert [line.split()[2] for line in lines] == [
        "run.queued",
        "run.started",
        "artifact.saved",
        "artifact.saved",
        "step.failed",
        "run.failed",
    ]
    after = reports.stepwell("runs", "events", "last", "--after", "4", "--json").out.splitlines()
    assert [json.loads(line)["seq"] for line in after] == [5, 6]


def test_events_do_not_wait_unless_asked_to_and_then_until_the_end(flock: Project) -> None:
    flock.stepwell("run", "patient", "a", "--detach")
    now = flock.stepwell("runs", "events", "last")
    assert [line.split()[2] for line in now.out.splitlines()] == ["run.queued"]
    following = flock.start("runs", "events", "last", "--follow", "--json")
    wait_until(lambda: "run.queued" in following.out)
    flock.write("a", "")
    flock.stepwell("run", "patient", "--continue")
    done = following.ends()
    assert (done.code, json.loads(done.out.splitlines()[-1])["kind"]) == (0, "run.succeeded")


def test_an_artifact_goes_to_stdout_or_into_a_file(reports: Project) -> None:
    assert reports.stepwell("runs", "artifact", "last", "report.md").out == "# Report\n"
    written = reports.stepwell("runs", "artifact", "last", "data.bin", "-o", "copy.bin")
    assert (written.code, written.out, written.err) == (0, "", "copy.bin: 256 B\n")
    assert (reports.folder / "copy.bin").read_bytes() == bytes(range(256))
    (reports.folder / "sub").mkdir()
    reports.stepwell("runs", "artifact", "last", "report.md", "-o", "sub")
    assert reports.read("sub/report.md") == "# Report\n"


def test_an_unknown_artifact_is_answered_with_a_near_one(reports: Project) -> None:
    done = reports.stepwell("runs", "artifact", "last", "reprt.md")
    assert (done.code, done.out) == (4, "")
    assert "did you mean: report.md" in done.err


def test_artifacts_of_an_unfinished_run_are_not_there_yet(flock: Project) -> None:
    flock.stepwell("run", "patient", "a", "--detach")
    done = flock.stepwell("runs", "artifact", "last", "report.md")
    assert done.code == 6
    assert "has not ended (queued)" in done.err


def test_a_run_that_is_not_held_cannot_be_resumed(reports: Project) -> None:
    done = reports.stepwell("runs", "resume", "last")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[run.ended]: ")


def test_a_reader_that_leaves_early_is_no_error(reports: Project) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stepwell", "runs", "events", "last"],
        cwd=reports.folder,
        env=reports.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (0, b"")


# ---------------------------------------------------------------- doctor, migrate, init


def test_doctor_names_everything_with_its_source(reports: Project) -> None:
    done = reports.stepwell("doctor")
    assert done.code == 0
    for part in (
        r"^python +3\.",
        r"^sqlite +3\.",
        r"^app +app\.py  \(default: .*/app\.py\)$",
        r"^store +sqlite:////.*/\.stepwell/stepwell\.db  \(default\)$",
        r"^access +file 0600, folder 0700$",
        r"^schema +\d+$",
        r"^runs +(1 failed, 1 succeeded|1 succeeded, 1 failed)$",
        r"^workers +none alive$",
        r"nothing wrong$",
    ):
        assert re.search(part, done.out, re.MULTILINE), f"{part}\n{done.out}"


def test_doctor_finds_runs_that_nobody_serves_and_workers_that_live(flock: Project) -> None:
    flock.stepwell("run", "patient", "a", "--detach")
    assert flock.stepwell("doctor").code == 0
    make_older(flock, minutes=1)
    alone = flock.stepwell("doctor")
    assert alone.code == 1
    assert "1 run of patient: due, and nobody takes them up" in alone.out
    worker = flock.start("worker")
    worker.reaches(lambda: "a" in flock.read("effects.txt"))
    served = flock.stepwell("doctor")
    assert served.code == 0
    assert re.search(
        rf"^workers +…[0-9a-z]{{6}} pid {worker.process.pid} on .*, 1 of 16 busy", served.out, re.MULTILINE
    )


def test_doctor_finds_runs_of_a_process_that_is_gone(flock: Project) -> None:
    command = flock.start("run", "patient", "a")
    command.reaches(lambda: "a" in flock.read("effects.txt"))
    command.signal(signal.SIGKILL)
    command.ends()
    done = flock.stepwell("doctor")
    assert done.code == 1
    assert "1 run: begun by a process that is gone" in done.out


def make_older(project: Project, *, minutes: int) -> None:
    """Let the runs of a store be due since an earlier moment."""
    connection = apsw.Connection(str(project.folder / ".stepwell/stepwell.db"))
    connection.execute("update run set available_at = available_at - ?", (minutes * 60_000_000,))
    connection.close()


def test_doctor_finds_a_store_that_others_can_read(reports: Project) -> None:
    (reports.folder / ".stepwell/stepwell.db").chmod(0o644)
    done = reports.stepwell("doctor", "--json")
    found = json.loads(done.out)
    assert (done.code, found["ok"], len(found["problems"])) == (5, False, 1)
    assert "chmod 600" in found["problems"][0]


def test_doctor_finds_a_damaged_store(reports: Project) -> None:
    file = reports.folder / ".stepwell/stepwell.db"
    file.write_bytes(b"no database" * 1000)
    done = reports.stepwell("doctor")
    assert done.code == 5
    assert "✗" in done.out


def test_doctor_makes_no_store(project: Project) -> None:
    done = project.stepwell("doctor")
    assert done.code == 0
    assert "not there yet" in done.out
    assert list(project.folder.iterdir()) == []


def test_migrate_makes_the_store_and_says_its_schema(project: Project) -> None:
    first = project.stepwell("migrate")
    assert first.code == 0
    assert re.search(r"stepwell\.db: created with schema \d+\n$", first.out)
    assert re.search(r"stepwell\.db: is at schema \d+\n$", project.stepwell("migrate").out)


def test_what_init_writes_runs(project: Project) -> None:
    assert project.stepwell("init", "shop").code == 0
    app = project.read("shop/app.py")
    project.write("shop/app.py", app.replace("sleep(5)", "sleep(0)"))
    done = project.stepwell("run", "shop", "Ada")
    assert (done.code, done.out) == (0, "WELCOME BACK, ADA!\n")


# ---------------------------------------------------------------- speed


def test_the_version_is_shown_soon(project: Project) -> None:
    """Bounded by what the interpreter and the option parser need on this very machine."""

    def seconds(*command: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, env=environment, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    environment = {name: value for name, value in project.environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(project.folder / "cache")
    rounds = [
        (seconds("-m", "stepwell", "--version"), seconds("-c", "import click, importlib.metadata")) for _ in range(6)
    ]
    ours, parser = (min(times) for times in zip(*rounds[1:], strict=True))
    assert ours <= 2 * parser + 0.05


def test_the_version_needs_nothing_heavy(project: Project) -> None:
    code = (
        "import sys\n"
        "from stepwell.cli.root import stepwell\n"
        "try:\n    stepwell.main(['--version'])\n"
        "except SystemExit:\n    print(sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=project.environment, capture_output=True, text=True)
    loaded = {name.strip("'[],\n") for name in done.stderr.split()}
    assert "click" in loaded
    assert loaded & {"apsw", "pydantic", "asyncio", "anyio", "ruamel", "rich", "stepwell.runtime"} == set()
