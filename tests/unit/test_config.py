"""Where app and store are: one rule, each value with its source. And the YAML that people write."""

from pathlib import Path

import pytest

from stepwell.config import Unreadable, app_in, find_app, find_project, find_store, read_yaml, store_file
from stepwell.domain.errors import InvalidDefinition, NotFound


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEPWELL_STORE", raising=False)
    monkeypatch.delenv("STEPWELL_APP", raising=False)
    return tmp_path


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------- the store


def test_without_any_setting_the_store_is_in_the_current_folder(folder: Path) -> None:
    setting = find_store()
    assert setting.value == f"sqlite:///{folder}/.stepwell/stepwell.db"
    assert setting.source == "default"


@pytest.mark.parametrize("below", ["", "src", "src/deep/er"])
def test_the_default_store_is_beside_the_project_file_from_wherever_below_one_looks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    write(folder / "pyproject.toml", "[tool.stepwell]\n")
    (folder / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder / below)
    assert find_store().value == f"sqlite:///{folder}/.stepwell/stepwell.db"


def test_a_project_file_without_a_table_still_marks_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "pyproject.toml", "[project]\nname = 'x'\n")
    (folder / "src").mkdir()
    monkeypatch.chdir(folder / "src")
    assert find_store().value == f"sqlite:///{folder}/.stepwell/stepwell.db"


def test_a_table_further_up_wins_over_a_project_file_without_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "pyproject.toml", "[tool.stepwell]\nstore = 'sqlite:///team.db'\n")
    write(folder / "part/pyproject.toml", "[project]\nname = 'part'\n")
    monkeypatch.chdir(folder / "part")
    assert find_store().value == f"sqlite:///{folder}/team.db"


def test_argument_beats_environment_beats_file_beats_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [find_store().source]
    file = write(folder / "pyproject.toml", "[tool.stepwell]\nstore = 'sqlite:///file.db'\n")
    seen.append(find_store().source)
    monkeypatch.setenv("STEPWELL_STORE", "sqlite:///environment.db")
    seen.append(find_store().source)
    seen.append(find_store("sqlite:///argument.db").source)
    assert seen == ["default", f"{file} [tool.stepwell] store", "environment: STEPWELL_STORE", "argument"]


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_STORE", "")
    assert find_store().source == "default"


def test_a_relative_path_in_a_file_starts_from_the_file_and_elsewhere_from_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "pyproject.toml", "[tool.stepwell]\nstore = 'sqlite:///data/x.db'\n")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert find_store().value == f"sqlite:///{folder}/data/x.db"
    assert find_store("sqlite:///data/x.db").value == f"sqlite:///{folder}/sub/data/x.db"
    monkeypatch.setenv("STEPWELL_STORE", "sqlite:///data/x.db")
    assert find_store().value == f"sqlite:///{folder}/sub/data/x.db"


def test_an_absolute_path_and_other_stores_stay_as_they_are() -> None:
    assert find_store("sqlite:////var/lib/x.db").value == "sqlite:////var/lib/x.db"
    assert find_store("memory://").value == "memory://"


def test_a_folder_to_start_from_can_be_given(folder: Path) -> None:
    assert find_store(start=folder / "elsewhere").value == f"sqlite:///{folder}/elsewhere/.stepwell/stepwell.db"


def test_only_a_file_has_a_path() -> None:
    assert store_file("sqlite:////var/x.db") == Path("/var/x.db")
    assert store_file("sqlite:///x.db") == Path("x.db")
    assert store_file("memory://") is None
    assert store_file("sqlite:///") is None


# ---------------------------------------------------------------- the app


def test_without_any_setting_there_is_no_app_and_the_error_says_how_to_name_one() -> None:
    with pytest.raises(NotFound) as caught:
        find_app()
    assert caught.value.code == "app.unset"
    assert "stepwell run FILE.py" in (caught.value.hint or "")


def test_app_py_is_the_app_unless_something_else_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "app.py")
    assert find_app().value == "app.py"
    write(folder / "pyproject.toml", "[tool.stepwell]\napp = 'shop:agents'\n")
    assert find_app().value == "shop:agents"
    monkeypatch.setenv("STEPWELL_APP", "other.py")
    assert find_app().value == "other.py"
    assert find_app("argument.py").value == "argument.py"


def test_app_py_is_found_beside_the_project_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "app.py")
    write(folder / "pyproject.toml", "[tool.stepwell]\n")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    setting = find_app()
    assert (setting.value, setting.base) == ("app.py", folder)


def test_the_app_of_a_folder_is_looked_for_in_that_folder_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "app.py")
    monkeypatch.setenv("STEPWELL_APP", "other.py")
    part = write(folder / "part/pyproject.toml", "[tool.stepwell]\napp = 'part.py'\n").parent
    assert app_in(part).value == "part.py"
    (folder / "empty").mkdir()
    with pytest.raises(NotFound):
        app_in(folder / "empty")


# ---------------------------------------------------------------- the project file


def test_stepwell_yaml_is_a_project_file_too(folder: Path) -> None:
    file = write(folder / "stepwell.yaml", "store: sqlite:///x.db\napp: shop.py\n")
    assert find_store().value == f"sqlite:///{folder}/x.db"
    assert find_store().source == f"{file}: store"
    assert find_app().value == "shop.py"


def test_an_empty_stepwell_yaml_marks_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "stepwell.yaml")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert find_store().value == f"sqlite:///{folder}/.stepwell/stepwell.db"


def test_no_project_file_is_no_project(tmp_path: Path) -> None:
    assert find_project(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "text", "code", "part"),
    [
        ("pyproject.toml", "[tool.stepwell]\nstore = \n", "config.syntax", "line 2"),
        ("pyproject.toml", "[tool.stepwell]\nstoer = 'x'\n", "config.unknown_key", "'stoer'"),
        ("pyproject.toml", "[tool.stepwell]\nstore = 3\n", "config.type", "store is 3"),
        ("pyproject.toml", "[tool]\nstepwell = 3\n", "config.shape", "not a table"),
        ("stepwell.yaml", "store: [\n", "config.syntax", "stepwell.yaml:2:1"),
        ("stepwell.yaml", "store: a\nstore: b\n", "config.syntax", "stepwell.yaml:2:1"),
        ("stepwell.yaml", "agents: {}\n", "config.unknown_key", "'agents'"),
        ("stepwell.yaml", "- store\n", "config.shape", "not a table"),
    ],
)
def test_a_wrong_project_file_is_refused_with_its_place(
    folder: Path, name: str, text: str, code: str, part: str
) -> None:
    write(folder / name, text)
    with pytest.raises(InvalidDefinition) as caught:
        find_store()
    assert caught.value.code == code
    assert part in caught.value.message
    assert name in caught.value.message


def test_a_misspelled_setting_is_answered_with_the_right_one(folder: Path) -> None:
    write(folder / "pyproject.toml", "[tool.stepwell]\nstoer = 'x'\n")
    with pytest.raises(InvalidDefinition) as caught:
        find_store()
    assert caught.value.hint == "did you mean: store"


def test_a_project_file_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "pyproject.toml").write_bytes(b"\xff\xfe[tool.stepwell]")
    with pytest.raises(InvalidDefinition) as caught:
        find_store()
    assert caught.value.code == "config.unreadable"


def test_two_project_files_in_one_folder_are_refused(folder: Path) -> None:
    write(folder / "stepwell.yaml", "store: sqlite:///a.db\n")
    write(folder / "pyproject.toml", "[tool.stepwell]\nstore = 'sqlite:///b.db'\n")
    with pytest.raises(InvalidDefinition) as caught:
        find_store()
    assert caught.value.code == "config.twice"


def test_other_tools_in_pyproject_are_no_matter_of_ours(folder: Path) -> None:
    write(folder / "pyproject.toml", "[tool.other]\nwith = 'stepwell'\n")
    assert find_store().source == "default"


# ---------------------------------------------------------------- YAML


def test_yaml_is_read_as_version_1_2_and_dates_stay_text() -> None:
    text = "yes: no\nday: 2026-11-19\nat: 2026-11-19T12:00:00Z\noctal: 012\nnothing: ~\nhalf: 0.5\nmany: [1, true]\n"
    assert read_yaml(text, "x.yaml") == {
        "yes": "no",
        "day": "2026-11-19",
        "at": "2026-11-19T12:00:00Z",
        "octal": 12,
        "nothing": None,
        "half": 0.5,
        "many": [1, True],
    }


def test_aliases_and_merges_are_written_out() -> None:
    assert read_yaml("a: &a {x: 1}\nb: *a\nc:\n  <<: *a\n  y: 2\n", "x.yaml")["c"] == {"x": 1, "y": 2}


def test_empty_yaml_is_nothing() -> None:
    assert read_yaml("", "x.yaml") is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\na: 2\n", "x.yaml:2:1"),
        ("a: [1\nb: 2\n", "x.yaml:2:2"),
        ("a: b: c\n", "x.yaml:1:5"),
        ("a:\n\t- b\n", "x.yaml:2:1"),
        ("a: 1\nb: !!python/object:os.system x\n", "x.yaml:2:4"),
        ("a: !!binary aGk=\n", "x.yaml:1:4"),
        ("a: &a [*a]\n", "x.yaml:1:4"),
        ("1: x\n", "x.yaml:1:1"),
        ("? [1, 2]\n: x\n", "x.yaml:1:3"),
        ("--- 1\n--- 2\n", "x.yaml:2:1"),
        ("a: \x00\n", "x.yaml"),
        ("[" * 5000, "x.yaml"),
        ("- x\n" * 300_000, "x.yaml"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_place(text: str, place: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_yaml(text, "x.yaml")
    assert str(caught.value).startswith(f"{place}")


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(Unreadable, match="aliases"):
        read_yaml("\n".join(levels), "x.yaml")
