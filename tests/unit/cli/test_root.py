"""The command line as a whole: help, versions, misspelled names, and errors that become messages and exit codes."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from stepwell.cli.commands import Duration
from stepwell.cli.failures import exit_code, tell_unexpected
from stepwell.cli.root import stepwell
from stepwell.domain import errors


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, and an environment that says nothing; imported modules are taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEPWELL_STORE", raising=False)
    monkeypatch.delenv("STEPWELL_APP", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if name not in before and (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def invoke(*words: str) -> Result:
    return CliRunner().invoke(stepwell, list(words))


COMMANDS = [
    (),
    ("run",),
    ("worker",),
    ("runs",),
    ("runs", "list"),
    ("runs", "show"),
    ("runs", "events"),
    ("runs", "artifact"),
    ("runs", "resume"),
    ("agents",),
    ("agents", "list"),
    ("agents", "show"),
    ("check",),
    ("doctor",),
    ("migrate",),
    ("init",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_in_80_columns(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "Usage: stepwell" in result.stdout
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []


def test_every_option_is_explained() -> None:
    def options(command: click.Command, path: str) -> Iterator[tuple[str, click.Option]]:
        context = click.Context(command)
        yield from ((path, param) for param in command.params if isinstance(param, click.Option))
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                yield from options(inner, f"{path} {name}")

    assert [f"{path} {option.name}" for path, option in options(stepwell, "stepwell") if not option.help] == []


def test_the_version_is_shown() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"stepwell (\d+\.\d+\.\d+\S*|\(not installed\))\n", result.stdout)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("rnu",), "did you mean: run"),
        (("runs", "lst"), "did you mean: list"),
        (("hello.py", "Ada"), "did you mean: stepwell run hello.py"),
    ],
)
def test_a_misspelled_command_is_answered_with_a_guess(words: tuple[str, ...], hint: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert hint in result.stderr.splitlines()[1]


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "a.py", "--json", "--events"),
        ("run", "a.py", "Ada", "--continue"),
        ("run", "a.py", "--input", "1", "--continue"),
        ("run", "a.py", "--key", "k", "--continue"),
        ("run", "a.py", "--detach", "--continue"),
        ("run", "a.py", "--detach", "--timeout", "5"),
        ("run", "a.py", "--detach", "--events"),
        ("run", "a.py", "--timeout", "soon"),
        ("run", "a.py", "--no-such-option"),
        ("run", "a.py", "-5"),
        ("worker", "--capacity", "0"),
        ("runs", "list", "--status", "done"),
        ("runs", "list", "--limit", "-1"),
        ("runs", "resume", "last", "5"),
        ("runs", "resume", "last", "--as", "maybe"),
        ("runs", "show"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_points_to_the_help(words: tuple[str, ...]) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error[usage]: ")
    assert "see: stepwell" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_target_is_named_as_the_help_names_it() -> None:
    assert invoke("run").stderr.startswith("error[usage]: TARGET is missing\n")


@pytest.mark.parametrize("words", [(), ("runs",), ("agents",)], ids=str)
def test_a_group_alone_shows_its_help_and_no_error(words: tuple[str, ...]) -> None:
    result = invoke(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: stepwell")
    assert "error[" not in result.stderr


def test_a_refusal_of_the_system_names_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    tell_unexpected(PermissionError(13, "Permission denied", "out/report.md"), with_traceback=False)
    assert capsys.readouterr().err.startswith("error[system]: out/report.md: Permission denied\n")


def test_words_that_begin_with_a_dash_are_explained() -> None:
    assert "behind --" in invoke("run", "a.py", "-5").stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RunFailed("x", run_id="run_x", status="failed"), 1),
        (errors.InvalidInput("x"), 2),
        (errors.InvalidValue("x", path="x"), 2),
        (errors.Conflict("x"), 2),
        (errors.RunEnded("x"), 2),
        (errors.InvalidDefinition("x"), 3),
        (errors.NotFound("x"), 4),
        (errors.StoreUnavailable("x"), 5),
        (errors.StoreFull("x"), 5),
        (errors.StoreUnusable("x"), 5),
        (errors.Busy("x"), 5),
        (errors.WaitTimeout("x", run_id="run_x"), 6),
        (errors.Misuse("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: errors.StepwellError, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_is_told_as_code_message_frames_and_advice() -> None:
    Path("broken.py").write_text("def f():\n    raise KeyError('x')\nf()\n")
    result = invoke("check", "broken.py")
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        "error[target.import]: broken.py could not be imported: KeyError: 'x'",
        "  broken.py:3 in <module>",
        "    f()",
        "  broken.py:2 in f",
        "    raise KeyError('x')",
    ]


def test_the_whole_traceback_is_shown_when_it_is_asked_for() -> None:
    Path("broken.py").write_text("raise KeyError('x')\n")
    assert "Traceback (most recent call last)" in invoke("--traceback", "check", "broken.py").stderr


def test_a_defect_of_ours_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.cli.init.FILES", 3)
    result = invoke("init", "new")
    assert result.exit_code == 1
    assert result.stderr.startswith("error[unexpected]: TypeError: ")
    assert "--traceback" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in invoke("--traceback", "init", "new").stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("0.5", 0.5), ("30s", 30.0), ("5m", 300.0), ("2s 500ms", 2.5), ("1h30m", 5400.0), ("7d", 604800.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 minutes", "-5", "5m!", "1e3", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


# ---------------------------------------------------------------- init


def test_init_writes_a_project_that_check_finds_good() -> None:
    result = invoke("init", "shop")
    assert (result.exit_code, result.stdout) == (0, "")
    assert sorted(path.name for path in Path("shop").iterdir()) == [".gitignore", "app.py", "pyproject.toml"]
    assert "cd shop" in result.stderr
    checked = invoke("check", "shop")
    assert (checked.exit_code, checked.stderr) == (0, "✓ shop/app.py: 1 agent, nothing wrong\n")


@pytest.mark.parametrize("name", ["app.py", "pyproject.toml", ".gitignore"])
def test_init_overwrites_nothing_and_writes_nothing_then(name: str) -> None:
    Path("shop").mkdir()
    Path("shop", name).write_text("mine")
    result = invoke("init", "shop")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error[init.exists]: shop/{name} is already there\n")
    assert [path.name for path in Path("shop").iterdir()] == [name]
    assert Path("shop", name).read_text() == "mine"


def test_init_says_so_where_it_may_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = invoke("init", "shop")
    assert result.exit_code == 2
    assert result.stderr.startswith("error[init.unwritable]: shop cannot be written: Permission denied\n")


def test_a_store_in_a_folder_of_somebody_else_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    result = invoke("runs", "list", "--store", "sqlite:////srv/other/stepwell.db")
    assert result.exit_code == 5
    assert result.stderr.startswith("error[store.hidden]: /srv/other/stepwell.db cannot be looked at")


# ---------------------------------------------------------------- agents, check

DESK = '''
from dataclasses import dataclass
from stepwell import App, Context, Limit, Retry

app = App("desk", limit=9)


@dataclass
class Ticket:
    id: int
    text: str = ""


@app.agent(version="2", retry=Retry(5), timeout=90, concurrency=Limit(2, key=lambda ticket: str(ticket.id)))
async def support(ctx: Context, ticket: Ticket) -> str:
    """Answer a ticket."""
    return ticket.text


@app.agent(session="synchronized", busy="reject", children=7)
async def ping(ctx: Context) -> None:
    pass


@ping.on_cancel
async def clean_up(ctx: Context) -> None:
    pass
'''


def test_agents_are_listed_with_what_they_take() -> None:
    Path("desk.py").write_text(DESK)
    result = invoke("agents", "list", "desk.py")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "agent    version  input                   limits                                      what it does",
        "support  2        id=integer [text=text]  2 at once per key; 9 in the app             Answer a ticket.",
        "ping     1        none                    9 in the app; one per session, else reject",
    ]


def test_one_agent_is_shown_with_schemas_and_policies() -> None:
    Path("desk.py").write_text(DESK)
    shown = invoke("agents", "show", "desk.py:support").stdout
    assert "agent      support, version 2" in shown
    assert "5 attempts" in shown
    assert "1 min 30 s" in shown
    assert "limits     2 at once per key; 9 in the app" in shown
    assert "on cancel  just ends" in shown
    assert '"title": "Ticket"' in shown
    assert "ping" not in shown


def test_how_an_agent_meets_others_is_shown() -> None:
    Path("desk.py").write_text(DESK)
    shown = invoke("agents", "show", "desk.py:ping").stdout
    for line in ("session    synchronized", "children   7 at once", "on cancel  cleans up"):
        assert line in shown


def test_agents_as_json() -> None:
    import json

    Path("desk.py").write_text(DESK)
    listed = json.loads(invoke("agents", "list", "desk.py", "--json").stdout)
    assert [agent["name"] for agent in listed] == ["support", "ping"]
    shown = json.loads(invoke("agents", "show", "desk.py:support", "--json").stdout)
    assert (shown["max_attempts"], shown["timeout"], shown["input"]["type"]) == (5, 90.0, "object")
    limits = ("concurrency", "concurrency_by_key", "app_limit", "session", "busy", "children", "cleans_up")
    assert [[agent[name] for name in limits] for agent in listed] == [
        [2, True, 9, "shared", "queue", 100, False],
        [None, False, 9, "synchronized", "reject", 7, True],
    ]


def test_check_tells_all_problems_with_their_places() -> None:
    text = DESK.replace("ticket: Ticket", "ticket: Missing").replace("-> None", "-> Connection")
    text = f"from __future__ import annotations\nclass Connection: ...\n{text}"
    Path("desk.py").write_text(text)
    result = invoke("check", "desk.py")
    assert result.exit_code == 3
    problems = [line for line in result.stderr.splitlines() if line.startswith("error[")]
    assert [problem.split(":")[:3] for problem in problems] == [
        ["error[definition.annotation]", " desk.py", "16"],
        ["error[definition.type]", " desk.py", "22"],
    ]


def test_check_looks_at_the_settings_too() -> None:
    Path("pyproject.toml").write_text("[tool.stepwell]\nstoer = 'x'\n")
    Path("desk.py").write_text(DESK)
    result = invoke("check", "desk.py")
    assert result.exit_code == 3
    assert "did you mean: store" in result.stderr


# ---------------------------------------------------------------- looking without a store


@pytest.mark.parametrize(
    "words", [("list",), ("show", "last"), ("events", "last"), ("artifact", "last", "x"), ("resume", "last")]
)
def test_looking_at_runs_makes_no_store(folder: Path, words: tuple[str, ...]) -> None:
    result = invoke("runs", *words)
    assert result.exit_code == 4
    assert result.stderr.startswith("error[store.missing]: there is no store at ")
    assert list(folder.iterdir()) == []
