"""What a person types leads to an app and an agent; what does not is answered with the reason and a near match."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.domain.errors import InvalidDefinition, NotFound, StepwellError
from stepwell.plugins import load_target

HELLO = """
from stepwell import App, Context

app = App("hello")


@app.agent
async def hello(ctx: Context, name: str) -> str:
    return name


@app.agent(name="good:bye")
async def goodbye(ctx: Context) -> str:
    return "bye"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what is imported and put on the import path is taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEPWELL_APP", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if name not in before and (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write(path: str, text: str = HELLO) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def refused(text: str | None) -> StepwellError:
    with pytest.raises(StepwellError) as caught:
        load_target(text)
    return caught.value


def notes(error: StepwellError) -> str:
    return "\n".join(getattr(error, "__notes__", []))


# ---------------------------------------------------------------- the forms


def test_a_file_gives_its_app_and_no_agent() -> None:
    write("greetings.py")
    target = load_target("greetings.py")
    assert (target.app.name, target.agent, target.origin) == ("hello", None, "greetings.py")


@pytest.mark.parametrize("agent", ["hello", "good:bye"])
def test_a_file_and_an_agent(agent: str) -> None:
    write("greetings.py")
    target = load_target(f"greetings.py:{agent}")
    assert target.agent is not None
    assert target.agent.name == agent


def test_a_path_to_a_file_may_be_absolute_or_relative(folder: Path) -> None:
    write("sub/dir/greetings.py")
    assert load_target(str(folder / "sub/dir/greetings.py")).origin == "sub/dir/greetings.py"
    assert load_target("./sub/dir/greetings.py").app.name == "hello"


def test_the_app_may_have_any_name_in_its_module_and_be_imported_into_another() -> None:
    write("agents.py", HELLO.replace("app", "flock"))
    write("main.py", "from agents import flock as mine\nalso = mine\n")
    assert load_target("main.py").app is load_target("agents.py").app


def test_a_module_and_an_attribute() -> None:
    write("shop/__init__.py", "")
    write("shop/agents.py")
    assert load_target("shop.agents:app").app.name == "hello"
    target = load_target("shop.agents:app:good:bye")
    assert target.agent is not None
    assert target.agent.name == "good:bye"


def test_a_folder_with_app_py() -> None:
    write("examples/hello/app.py")
    assert load_target("examples/hello").app.name == "hello"
    target = load_target("examples/hello:hello")
    assert target.agent is not None


def test_a_folder_with_a_project_file() -> None:
    write("shop/pyproject.toml", '[tool.stepwell]\napp = "code/agents.py"\n')
    write("shop/code/agents.py")
    assert load_target("shop").app.name == "hello"
    assert load_target("./shop:hello").agent is not None


def test_the_current_folder() -> None:
    write("app.py")
    assert load_target(".").app.name == "hello"


def test_an_agent_of_the_project() -> None:
    write("stepwell.yaml", "app: flock:app\n")
    write("flock.py")
    for name in ("hello", "good:bye"):
        target = load_target(name)
        assert target.agent is not None
        assert target.agent.name == name


def test_no_target_means_the_app_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    write("flock.py")
    monkeypatch.setenv("STEPWELL_APP", "flock.py")
    assert load_target(None).app.name == "hello"


def test_an_agent_wins_over_a_folder_of_the_same_name_and_a_folder_over_nothing() -> None:
    write("app.py")
    write("hello/app.py", HELLO.replace('App("hello")', 'App("folder")'))
    assert load_target("hello").app.name == "hello"
    write("other/app.py", HELLO.replace('App("hello")', 'App("folder")'))
    assert load_target("other").app.name == "folder"


# ---------------------------------------------------------------- how it is imported


def test_a_file_is_imported_under_its_own_name_once() -> None:
    write("greetings.py")
    first, second = load_target("greetings.py"), load_target("greetings.py")
    assert first.app is second.app
    assert first.app.agents["hello"].__module__ == "greetings"
    assert sys.modules["greetings"].__file__ == str(Path("greetings.py").absolute())


def test_siblings_can_be_imported() -> None:
    write("sub/words.py", "WORD = 'hi'\n")
    write("sub/app.py", f"from words import WORD\n{HELLO}")
    assert load_target("sub/app.py").app.name == "hello"


def test_a_file_inside_a_package_may_import_from_it() -> None:
    write("shop/__init__.py", "")
    write("shop/words.py", "WORD = 'hi'\n")
    write("shop/agents.py", f"from .words import WORD\nfrom shop.words import WORD as SAME\n{HELLO}")
    assert load_target("shop/agents.py").app.agents["hello"].__module__ == "shop.agents"


@pytest.mark.parametrize("name", ["queue.py", "click.py", "my-agents.py", "v1.2.py", "__main__.py"])
def test_a_file_may_be_called_like_a_module_that_exists_or_like_none_at_all(name: str) -> None:
    import queue

    import click

    write(f"sub/{name}")
    assert load_target(f"sub/{name}").app.name == "hello"
    assert sys.modules["queue"] is queue
    assert sys.modules["click"] is click


def test_two_files_of_one_name_are_two_apps() -> None:
    write("a/app.py")
    write("b/app.py", HELLO.replace('App("hello")', 'App("other")'))
    assert [load_target(f"{folder}/app.py").app.name for folder in "aba"] == ["hello", "other", "hello"]


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("typed", ["helo", "Hello", "hello-"])
def test_an_unknown_agent_is_answered_with_a_near_match(typed: str) -> None:
    write("greetings.py")
    error = refused(f"greetings.py:{typed}")
    assert error.code == "agent.unknown"
    assert error.message == f"no agent {typed!r} in greetings.py"
    assert error.hint == "did you mean: hello\nsee: stepwell agents list greetings.py"


def test_hyphens_and_underscores_are_near() -> None:
    write("audit.py", HELLO.replace("async def hello", "async def licence_audit"))
    assert "did you mean: licence_audit\n" in (refused("audit.py:licence-audit").hint or "")


def test_an_unknown_agent_of_the_project() -> None:
    write("app.py")
    error = refused("helo")
    assert (error.code, type(error)) == ("agent.unknown", NotFound)


def test_two_apps_in_a_module_are_both_named() -> None:
    write("two.py", 'from stepwell import App\nfirst = App("a")\nsecond = App("b")\n')
    error = refused("two.py")
    assert (error.code, type(error)) == ("app.ambiguous", InvalidDefinition)
    assert "first, second" in error.message
    assert "two:first" in (error.hint or "")


def test_one_of_two_apps_can_be_named() -> None:
    write("two.py", 'from stepwell import App\nfirst = App("a")\nsecond = App("b")\n')
    assert load_target("two:second").app.name == "b"


def test_a_module_without_an_app() -> None:
    write("none.py", "x = 1\n")
    error = refused("none.py")
    assert (error.code, error.message) == ("app.missing", "none.py has no App")


def test_a_missing_file_is_answered_with_a_near_match() -> None:
    write("greetings.py")
    error = refused("greeting.py")
    assert (error.code, error.hint) == ("target.missing", "did you mean: greetings.py")
    assert refused("xyz.py").hint == "there are: greetings.py"
    assert refused("nowhere/at/all.py").code == "target.missing"
    assert refused("nowhere/at/all.py").hint == "to begin one: stepwell init DIR"


def test_a_forgotten_ending_is_answered_with_the_file() -> None:
    write("greetings.py")
    assert refused("greetings").hint == "did you mean: greetings.py"


@pytest.mark.parametrize("text", ["notes.txt", "./notes.txt"])
def test_a_file_that_is_not_python(text: str) -> None:
    write("notes.txt", "hello")
    assert refused(text).code == "target.kind"


def test_a_folder_called_like_a_file() -> None:
    Path("odd.py").mkdir()
    assert refused("odd.py").code == "target.kind"


def test_an_unknown_module_or_attribute() -> None:
    write("greetings.py")
    assert refused("nowhere:app").code == "target.missing"
    assert refused("nowhere.deep:app").code == "target.missing"
    error = refused("greetings:ap")
    assert (error.code, error.hint) == ("app.unknown", "did you mean: app")
    assert "a FunctionAgent, not an App, named 'hello'" in refused("greetings:hello").message


def test_a_setting_that_names_a_missing_file_is_told_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_APP", "gone.py")
    error = refused(None)
    assert error.code == "target.missing"
    assert "STEPWELL_APP" in error.message


def test_a_folder_without_an_app() -> None:
    Path("empty").mkdir()
    assert refused("empty").code == "app.unset"
    assert refused("./empty").code == "app.unset"


def test_a_syntax_error_is_told_with_file_line_and_column() -> None:
    write("broken.py", "x = 1\ny = (\n")
    error = refused("broken.py")
    assert error.code == "target.syntax"
    assert error.message.startswith("broken.py:2:5: ")
    assert "y = (" in notes(error)


def test_an_exception_at_import_shows_the_frames_of_the_user_alone() -> None:
    write("words.py", "def load():\n    return {}['missing']\n")
    write("broken.py", "import words\n\nwords.load()\n")
    error = refused("broken.py")
    assert error.code == "target.import"
    assert "KeyError: 'missing'" in error.message
    assert notes(error).splitlines() == [
        "broken.py:3 in <module>",
        "  words.load()",
        "words.py:2 in load",
        "  return {}['missing']",
    ]


def test_a_missing_package_says_what_to_install() -> None:
    write("broken.py", "import nothing_of_that_name.at_all\n")
    error = refused("broken.py")
    assert "'nothing_of_that_name'" in (error.hint or "")
    assert refused("broken:app").code == "target.import"


def test_a_module_that_ends_the_program_is_told_so() -> None:
    write("script.py", "import sys\nsys.exit(3)\n")
    assert refused("script.py").code == "target.exit"


def test_a_wrong_declaration_keeps_its_code_and_says_where() -> None:
    write("broken.py", HELLO.replace("async def goodbye", "def goodbye"))
    error = refused("broken.py")
    assert error.code == "definition.not_async"
    assert notes(error).startswith("broken.py:12 in <module>")


def test_an_agent_with_three_parameters_is_refused_with_their_names() -> None:
    write(
        "three.py",
        "from stepwell import App, Context\n\napp = App('x')\n\n\n"
        "@app.agent\nasync def three(ctx: Context, a: int, b: int) -> None: ...\n",
    )
    error = refused("three.py")
    assert (error.code, error.message) == ("definition.signature", "agent 'three' takes (ctx, a, b)")


def test_a_module_that_failed_is_imported_anew_the_next_time() -> None:
    write("sub/queue.py", "raise ValueError\n")
    refused("sub/queue.py")
    write("sub/queue.py", HELLO + "# longer, so that no cached code fits\n")
    assert load_target("sub/queue.py").app.name == "hello"
