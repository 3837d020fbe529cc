"""`stepwell run` as a person meets it: output, progress, exit codes, crashes, Ctrl-C, and going on."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.cli.conftest import Done, Project

HELLO = '''
"""Three steps; the second waits until a file says go."""

import pathlib
import time

from stepwell import App, Context

app = App("hello")


def greet(name: str) -> str:
    print("a step may print")
    with open("effects.txt", "a") as file:
        file.write("greet\\n")
    return f"Hello, {name}!"


def think(greeting: str) -> str:
    with open("effects.txt", "a") as file:
        file.write("think\\n")
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return greeting


def shout(text: str) -> str:
    return text.upper()


@app.agent
async def hello(ctx: Context, name: str) -> str:
    greeting = await ctx.step(greet, name)
    thought = await ctx.step(think, greeting)
    return await ctx.step(shout, thought)
'''

DESK = """
from dataclasses import dataclass
from datetime import date

from stepwell import App, Context

app = App("desk")


@dataclass
class Ticket:
    id: int
    day: date
    text: str = ""


@app.agent
async def echo(ctx: Context, ticket: Ticket) -> Ticket:
    return ticket


@app.agent
async def nothing(ctx: Context) -> None:
    await ctx.emit("seen", {"by": "nobody"})
    await ctx.artifact("report.md", "# Report")


def divide(a: int, b: int) -> float:
    return a / b


@app.agent
async def broken(ctx: Context, b: int) -> float:
    return await ctx.step(divide, 1, b)
"""


@pytest.fixture
def hello(project: Project) -> Project:
    """The three steps, free to go."""
    project.write("hello.py", HELLO)
    project.write("go", "")
    return project


@pytest.fixture
def waiting(project: Project) -> Project:
    """The three steps, and nobody says go."""
    project.write("hello.py", HELLO)
    return project


@pytest.fixture
def desk(project: Project) -> Project:
    project.write("desk.py", DESK)
    return project


def progress(text: str) -> list[str]:
    """The lines of steps, without their times."""
    return [re.sub(r"\s+[\d.]+ m?s$", "", line) for line in text.splitlines() if line[2:3] in "✓↺✗⟳"]


# ---------------------------------------------------------------- output


def test_stdout_is_the_output_and_nothing_else(hello: Project) -> None:
    done = hello.stepwell("run", "hello.py", "Ada")
    assert (done.code, done.out) == (0, "HELLO, ADA!\n")
    assert progress(done.err) == ["  ✓ greet", "  ✓ think", "  ✓ shout"]
    assert "a step may print" in done.err


def test_other_output_than_text_is_json(desk: Project) -> None:
    done = desk.stepwell("run", "desk.py:echo", "id=7", "day=2026-11-19", "text=a b")
    assert (done.code, json.loads(done.out)) == (0, {"id": 7, "day": "2026-11-19", "text": "a b"})
    assert done.out.startswith("{\n")


def test_no_output_is_written_as_nothing(desk: Project) -> None:
    done = desk.stepwell("run", "desk.py:nothing")
    assert (done.code, done.out) == (0, "")
    assert "seen" in done.err
    assert "report.md" in done.err


def test_a_result_as_json(desk: Project) -> None:
    done = desk.stepwell("run", "desk.py:nothing", "--json")
    result = json.loads(done.out)
    assert re.fullmatch(r"run_[0-9a-z]{26}", result.pop("run_id"))
    assert result == {
        "status": "succeeded",
        "reason": None,
        "ok": True,
        "output": None,
        "error": None,
        "artifacts": [{"name": "report.md", "media_type": "text/markdown", "size": 8}],
    }


def test_a_failure_as_json(desk: Project) -> None:
    done = desk.stepwell("run", "desk.py:broken", "0", "--json")
    result = json.loads(done.out)
    assert (done.code, result["ok"], result["status"], result["output"]) == (1, False, "failed", None)
    assert result["error"]["type"] == "StepFailed"


def test_events_are_written_as_json_lines(hello: Project) -> None:
    done = hello.stepwell("run", "hello.py", "Ada", "--events")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["kind"] for event in events] == [
        "run.queued",
        "run.started",
        "step.completed",
        "step.completed",
        "step.completed",
        "run.succeeded",
    ]
    assert progress(done.err) == []


def test_a_failure_shows_the_user_his_own_frames(desk: Project) -> None:
    done = desk.stepwell("run", "desk.py:broken", "0")
    assert (done.code, done.out) == (1, "")
    assert "✗ divide    ZeroDivisionError: division by zero" in done.err
    assert "error[step.error]: broken failed: step divide failed: ZeroDivisionError: division by zero\n" in done.err
    assert "in broken\n    return await ctx.step(divide, 1, b)\n" in done.err
    assert "in divide\n    return a / b\n" in done.err
    assert "stepwell/engine" not in done.err
    assert re.search(r"see: stepwell runs show [0-9a-z]{6}\n", done.err)


def test_an_input_from_a_file_and_from_stdin(desk: Project) -> None:
    desk.write("ticket.yaml", "id: 7\nday: 2026-11-19\n")
    from_file = desk.stepwell("run", "desk.py:echo", "--input", "@ticket.yaml")
    from_stdin = desk.stepwell("run", "desk.py:echo", "--input", "-", stdin=b'{"id": 7, "day": "2026-11-19"}')
    assert (from_file.code, from_stdin.code) == (0, 0)
    assert from_file.out == from_stdin.out


def test_a_store_can_be_named(hello: Project) -> None:
    hello.stepwell("run", "hello.py", "Ada", "--store", "sqlite:///other/place.db")
    assert (hello.folder / "other/place.db").exists()
    assert not (hello.folder / ".stepwell").exists()


def test_when_the_reader_of_events_leaves_the_run_is_handed_back(waiting: Project) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stepwell", "run", "hello.py", "Ada", "--events"],
        cwd=waiting.folder,
        env=waiting.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["kind"] == "run.queued"
    process.stdout.close()
    waiting.write("go", "")
    _, err = process.communicate()
    assert process.returncode in (0, 130)
    assert "Traceback" not in err
    assert waiting.stepwell("run", "hello.py", "--continue").code in (0, 4)


# ---------------------------------------------------------------- crashes and going on


def kill_in_think(project: Project) -> None:
    """Start, wait until the second step is under way, kill -9."""
    before = project.read("effects.txt").count("think")
    command = project.start("run", "hello.py", "Ada")
    command.reaches(lambda: project.read("effects.txt").count("think") > before)
    command.signal(signal.SIGKILL)
    assert command.ends().code == -signal.SIGKILL


def test_after_kill_9_continue_remembers_what_was_done(waiting: Project) -> None:
    kill_in_think(waiting)
    waiting.write("go", "")
    done = waiting.stepwell("run", "hello.py", "--continue")
    assert (done.code, done.out) == (0, "HELLO, ADA!\n")
    assert progress(done.err) == ["  ↺ greet     remembered", "  ✓ think", "  ✓ shout"]
    assert waiting.read("effects.txt").split() == ["greet", "think", "think"]


def test_a_killed_run_is_continued_as_often_as_needed(waiting: Project) -> None:
    kill_in_think(waiting)
    again = waiting.start("run", "hello.py", "--continue")
    again.reaches(lambda: waiting.read("effects.txt").count("think") == 2)
    again.signal(signal.SIGKILL)
    again.ends()
    waiting.write("go", "")
    assert waiting.stepwell("run", "hello.py", "--continue").out == "HELLO, ADA!\n"
    assert waiting.read("effects.txt").count("greet") == 1


def test_a_new_start_mentions_an_unfinished_run(waiting: Project) -> None:
    kill_in_think(waiting)
    waiting.write("go", "")
    done = waiting.stepwell("run", "hello.py", "Bob")
    assert done.out == "HELLO, BOB!\n"
    assert re.search(r"run …[0-9a-z]{6} of hello has not ended", done.err)
    assert "continue it with: stepwell run hello.py --continue\n" in done.err
    assert waiting.stepwell("run", "hello.py", "--continue").out == "HELLO, ADA!\n"


def test_continue_without_an_unfinished_run_says_so(hello: Project) -> None:
    hello.stepwell("run", "hello.py", "Ada")
    done = hello.stepwell("run", "hello.py", "--continue")
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith("error[run.none_unfinished]: no run of hello is unfinished\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_hands_back_and_prints_the_command_that_continues(waiting: Project, number: signal.Signals) -> None:
    command = waiting.start("run", "hello.py", "Ada")
    command.shows("✓ greet")
    command.reaches(lambda: "think" in waiting.read("effects.txt"))
    command.signal(number)
    done = command.ends()
    assert (done.code, done.out) == (130, "")
    assert re.search(r"run_[0-9a-z]{26}", done.err)
    told = re.search(r"continue it with: (stepwell run .*)\n", done.err)
    assert told
    waiting.write("go", "")
    again = waiting.stepwell(*told.group(1).split()[1:])
    assert (again.code, again.out) == (0, "HELLO, ADA!\n")
    assert "↺ greet     remembered" in again.err
    assert "died" not in again.err


def test_ctrl_c_lets_a_step_that_is_nearly_done_be_recorded(waiting: Project) -> None:
    command = waiting.start("run", "hello.py", "Ada")
    command.reaches(lambda: "think" in waiting.read("effects.txt"))
    waiting.write("go", "")
    command.signal(signal.SIGINT)
    assert command.ends().code in (0, 130)
    again = waiting.stepwell("run", "hello.py", "--continue")
    assert again.code in (0, 4)
    assert waiting.read("effects.txt").count("think") == 1


BUSY = """
import pathlib
import time
from stepwell import App, Context

app = App("busy")


@app.agent
async def busy(ctx: Context) -> None:
    pathlib.Path("started").touch()
    while True:
        time.sleep(0.01)
"""


def test_a_second_ctrl_c_ends_at_once_even_when_the_agent_blocks_everything(project: Project) -> None:
    project.write("busy.py", BUSY)
    command = project.start("run", "busy.py")
    command.reaches(lambda: (project.folder / "started").exists())
    command.signal(signal.SIGINT)
    command.reaches(lambda: _pending_signals(command.process.pid) == 0)
    command.signal(signal.SIGINT)
    done = command.ends()
    assert done.code == 130
    assert done.err.endswith(
        "ended at once; finished steps are kept\n    continue with: stepwell run busy.py --continue\n"
    )
    assert "\x1b" not in done.err


def _pending_signals(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^ShdPnd:\s+(\w+)$", status, re.MULTILINE)
    assert found
    return int(found.group(1), 16)


def test_after_the_timeout_the_run_is_handed_back_and_can_be_continued(waiting: Project) -> None:
    done = waiting.stepwell("run", "hello.py", "Ada", "--timeout", "500ms")
    assert (done.code, done.out) == (6, "")
    assert "has not ended after 500 ms" in done.err
    assert "continue it with: stepwell run hello.py --continue\n" in done.err
    waiting.write("go", "")
    assert waiting.stepwell("run", "hello.py", "--continue").out == "HELLO, ADA!\n"


def test_an_unfinished_run_as_json(waiting: Project) -> None:
    done = waiting.stepwell("run", "hello.py", "Ada", "--timeout", "500ms", "--json")
    result = json.loads(done.out)
    assert (done.code, result["ok"], result["status"]) == (6, False, "queued")


def test_detach_prints_the_id_and_executes_nothing(hello: Project) -> None:
    done = hello.stepwell("run", "hello.py", "Ada", "--detach")
    assert done.code == 0
    assert re.fullmatch(r"run_[0-9a-z]{26}\n", done.out)
    assert hello.read("effects.txt") == ""
    assert hello.stepwell("run", "hello.py", "--continue").out == "HELLO, ADA!\n"


def test_a_run_executes_itself_and_no_other(hello: Project) -> None:
    other = hello.stepwell("run", "hello.py", "Ada", "--detach").out.strip()
    assert hello.stepwell("run", "hello.py", "Bob").out == "HELLO, BOB!\n"
    assert json.loads(hello.stepwell("runs", "show", other, "--json").out)["status"] == "queued"


def test_continue_follows_a_run_that_another_process_executes(waiting: Project) -> None:
    first = waiting.start("run", "hello.py", "Ada")
    first.reaches(lambda: "think" in waiting.read("effects.txt"))
    second = waiting.start("run", "hello.py", "--continue")
    second.shows(f"process {first.process.pid} on ")
    waiting.write("go", "")
    assert first.ends().out == "HELLO, ADA!\n"
    done = second.ends()
    assert (done.code, done.out) == (0, "HELLO, ADA!\n")
    assert progress(done.err) == ["  ✓ think", "  ✓ shout"]
    assert waiting.read("effects.txt").split() == ["greet", "think"]


def test_a_follower_takes_over_when_the_other_process_dies(waiting: Project) -> None:
    first = waiting.start("run", "hello.py", "Ada")
    first.reaches(lambda: "think" in waiting.read("effects.txt"))
    second = waiting.start("run", "hello.py", "--continue")
    second.shows("following")
    first.signal(signal.SIGKILL)
    first.ends()
    waiting.write("go", "")
    done = second.ends()
    assert (done.code, done.out) == (0, "HELLO, ADA!\n")
    assert "the process that executed it died" in done.err
    assert "↺ greet     remembered" in done.err


def test_the_same_key_gives_the_same_run(hello: Project) -> None:
    first = hello.stepwell("run", "hello.py", "Ada", "--key", "k1")
    second = hello.stepwell("run", "hello.py", "Ada", "--key", "k1")
    assert (second.code, second.out) == (0, first.out)
    assert re.search(r"was started with this key .* and has ended", second.err)
    assert progress(second.err) == ["  ↺ greet     remembered", "  ↺ think     remembered", "  ↺ shout     remembered"]
    assert hello.read("effects.txt").count("greet") == 1


def test_the_same_key_goes_on_with_the_run_that_was_killed(waiting: Project) -> None:
    command = waiting.start("run", "hello.py", "Ada", "--key", "k1")
    command.reaches(lambda: "think" in waiting.read("effects.txt"))
    command.signal(signal.SIGKILL)
    command.ends()
    waiting.write("go", "")
    done = waiting.stepwell("run", "hello.py", "Ada", "--key", "k1")
    assert (done.code, done.out) == (0, "HELLO, ADA!\n")
    assert re.search(r"was started with this key .* and goes on", done.err)
    assert "has not ended" not in done.err
    assert progress(done.err) == ["  ↺ greet     remembered", "  ✓ think", "  ✓ shout"]


# ---------------------------------------------------------------- holds


def test_a_changed_program_is_held_and_explained_and_continues_when_put_back(waiting: Project) -> None:
    kill_in_think(waiting)
    waiting.write("go", "")
    waiting.write("hello.py", HELLO.replace("greeting = await ctx.step(greet, name)", "greeting = name"))
    held = waiting.stepwell("run", "hello.py", "--continue")
    assert (held.code, held.out) == (6, "")
    assert re.search(r"held\[diverged\]: run …[0-9a-z]{6} of hello is set aside", held.err)
    assert "the journal has step greet, the program asks for step think" in held.err
    assert "stepwell run hello.py --continue" in held.err
    waiting.write("hello.py", HELLO)
    done = waiting.stepwell("run", "hello.py", "--continue")
    assert (done.code, done.out) == (0, "HELLO, ADA!\n")


IN_DOUBT = HELLO.replace("ctx.step(think, greeting)", 'ctx.step(think, greeting, in_doubt="fail")')


@pytest.mark.parametrize(
    ("settle", "code", "output"),
    [
        (("--as", "done", "good evening"), 0, "GOOD EVENING\n"),
        (("--as", "done", '"hi"'), 0, "HI\n"),
        (("--as", "rerun"), 0, "HELLO, ADA!\n"),
        (("--as", "fail"), 1, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_step_in_doubt_is_explained_and_settled_by_a_person(
    project: Project, settle: tuple[str, ...], code: int, output: str
) -> None:
    project.write("hello.py", IN_DOUBT)
    kill_in_think(project)
    project.write("go", "")
    held = project.stepwell("run", "hello.py", "--continue")
    assert (held.code, held.out) == (6, "")
    assert "its step think may have had its effect, and no record says so" in held.err
    told = re.search(r"stepwell runs resume ([0-9a-z]{6}) --as rerun", held.err)
    assert told
    # Asked again, it says the same and changes nothing.
    assert project.stepwell("run", "hello.py", "--continue").code == 6
    assert project.stepwell("runs", "resume", told.group(1)).code == 2
    settled = project.stepwell("runs", "resume", told.group(1), *settle)
    assert (settled.code, settled.out) == (0, "")
    done = project.stepwell("run", "hello.py", "--continue")
    assert (done.code, done.out) == (code, output)


# ---------------------------------------------------------------- bad input, with nothing left behind


def no_setup(project: Project) -> None:
    return None


def two_apps(project: Project) -> None:
    project.write("two.py", 'from stepwell import App\nfirst = App("a")\nsecond = App("b")\n')


def plain_function(project: Project) -> None:
    project.write("plain.py", HELLO.partition("@app.agent")[0] + "@app.agent\ndef hello(ctx, name): ...\n")


def documents(project: Project) -> None:
    project.write("bad.yaml", "id: 7\nday: [2026\n")
    project.write("twice.yaml", "id: 7\nid: 8\n")
    project.write("wrong.yaml", "id: seven\nday: never\n")
    project.write("big.json", json.dumps({"id": 7, "day": "2026-11-19", "text": "x" * 2_000_000}))


def faulty_files(project: Project) -> None:
    project.write("syntax.py", "x = (\n")
    project.write("imports.py", "import nothing_of_that_name\n")
    project.write("empty.py", "from stepwell import App\napp = App('empty')\n")
    project.write("notes.txt", "hello")
    project.write("bare/readme.md", "hello")
    project.write("settings/pyproject.toml", "[tool.stepwell]\nap = 'x'\n")


DEEP = "[" * 100 + "]" * 100
ECHO = ("run", "desk.py:echo")

BAD = [
    (no_setup, ("run", "desk.py:ehco"), 4, "agent.unknown", "did you mean: echo"),
    (no_setup, ("run", "desk.py", "Ada"), 2, "agent.unspecified", "echo, nothing, broken"),
    (two_apps, ("run", "two.py"), 3, "app.ambiguous", "first, second"),
    (plain_function, ("run", "plain.py", "Ada"), 3, "definition.not_async", "plain.py:"),
    (no_setup, ("run", "dsk.py"), 4, "target.missing", "did you mean: desk.py"),
    (no_setup, ("run", "nowhere"), 4, "app.unset", "stepwell run FILE.py"),
    (faulty_files, ("run", "syntax.py"), 3, "target.syntax", "syntax.py:1:5"),
    (faulty_files, ("run", "imports.py"), 3, "target.import", "imports.py:1 in <module>"),
    (faulty_files, ("run", "empty.py"), 3, "app.empty", "@app.agent"),
    (faulty_files, ("run", "notes.txt"), 3, "target.kind", "not a Python file"),
    (faulty_files, ("run", "bare"), 4, "app.unset", "stepwell init"),
    (faulty_files, ("run", "settings"), 3, "config.unknown_key", "did you mean: app"),
    (no_setup, (*ECHO, "id=seven", "day=2026-11-19"), 2, "input.invalid", "input.id: "),
    (no_setup, (*ECHO, "--input", '{"id": "7", "day": "2026-11-19"}'), 2, "input.invalid", "input.id: "),
    (no_setup, (*ECHO, "idd=7"), 2, "input.invalid", "did you mean: id"),
    (no_setup, ECHO, 2, "input.invalid", "input.day: Field required"),
    (no_setup, (*ECHO, "--input", '{"id": NaN}'), 2, "value.nan", "input.id"),
    (no_setup, (*ECHO, "--input", '{"text": "a\\u0000b"}'), 2, "value.nul", "input.text"),
    (no_setup, (*ECHO, "--input", '{"text": "\\ud800"}'), 2, "value.surrogate", "input.text"),
    (no_setup, (*ECHO, b"id=7", b"day=2026-11-19", b"text=\xff"), 2, "value.surrogate", "input.text"),
    (no_setup, (*ECHO, "--input", DEEP), 2, "value.depth", "input"),
    (documents, (*ECHO, "--input", "@big.json"), 2, "input.size", "1 MiB"),
    (documents, (*ECHO, "--input", "@gone.yaml"), 4, "input.file", "gone.yaml"),
    (documents, (*ECHO, "--input", "@bad.yaml"), 2, "input.syntax", "bad.yaml:3:1"),
    (documents, (*ECHO, "--input", "@twice.yaml"), 2, "input.syntax", "twice.yaml:2:1"),
    (documents, (*ECHO, "--input", "@wrong.yaml"), 2, "input.invalid", "in wrong.yaml"),
    (no_setup, (*ECHO, "--input", "{"), 2, "value.json", "line 1"),
    (no_setup, ("run", "desk.py:nothing", "words"), 2, "input.unexpected", "takes no input"),
    (no_setup, (*ECHO, "id=7", "day=2026-11-19", "--store", "postgres://x"), 3, "store.url", "postgres://x"),
    (no_setup, (*ECHO, "id=7", "day=2026-11-19", "--store", "sqlite:///desk.py"), 5, "store.", "desk.py"),
]


@pytest.mark.parametrize(
    ("setup", "words", "code", "error", "part"), BAD, ids=[f"{case[3]} {n}" for n, case in enumerate(BAD)]
)
def test_bad_input_is_refused_clearly_and_leaves_nothing_behind(
    desk: Project,
    setup: Callable[[Project], None],
    words: tuple[str | bytes, ...],
    code: int,
    error: str,
    part: str,
) -> None:
    setup(desk)
    done = desk.stepwell(*words)
    assert done.code == code, done.err
    assert done.out == ""
    assert done.err.startswith(f"error[{error}")
    assert part in done.err
    assert "Traceback" not in done.err
    assert runs_in(desk) == []


def runs_in(project: Project) -> list[object]:
    listed: Done = project.stepwell("runs", "list", "--json")
    if listed.code == 4:
        return []
    found: list[object] = json.loads(listed.out)
    return found


def test_the_same_key_with_another_input_is_refused_and_the_first_run_stays(hello: Project) -> None:
    hello.stepwell("run", "hello.py", "Ada", "--key", "k1")
    done = hello.stepwell("run", "hello.py", "Bob", "--key", "k1")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[idempotency.conflict]: ")
    assert len(runs_in(hello)) == 1


def test_a_store_that_is_damaged_ends_with_5(hello: Project) -> None:
    hello.stepwell("run", "hello.py", "Ada")
    (hello.folder / ".stepwell/stepwell.db").write_bytes(b"this is no database" * 1000)
    done = hello.stepwell("run", "hello.py", "Bob")
    assert (done.code, done.out) == (5, "")
    assert done.err.startswith("error[store.")
    assert "Traceback" not in done.err


LIFESPAN = """
from contextlib import asynccontextmanager
from stepwell import App, Context


@asynccontextmanager
async def connect():
    raise ConnectionError("no database")
    yield


app = App("connected", lifespan=connect)


@app.agent
async def hello(ctx: Context) -> None: ...
"""


def test_a_lifespan_that_fails_shows_the_user_his_own_frames(project: Project) -> None:
    project.write("app.py", LIFESPAN)
    done = project.stepwell("run", "hello")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[:3] == [
        "error[app.error]: ConnectionError: no database",
        "  app.py:8 in connect",
        '    raise ConnectionError("no database")',
    ]
    assert "Traceback" not in done.err
    assert runs_in(project) == []


# ---------------------------------------------------------------- on a terminal


def test_on_a_terminal_progress_is_live_and_the_output_stays_plain(hello: Project) -> None:
    import os
    import pty

    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "stepwell", "run", "hello.py", "Ada"],
        cwd=hello.folder,
        env={name: value for name, value in hello.environment.items() if name != "NO_COLOR"} | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=follower,
        check=True,
    )
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert done.stdout == b"HELLO, ADA!\n"
    assert "\x1b[32m✓\x1b[0m greet" in shown
    # The cursor is shown all the time: a process that is killed could not bring it back.
    assert "\x1b[?25l\x1b[?25h" in shown
