"""Settings: where the app and the store of a project are, each with its source; and the YAML that people write by hand.

One rule for every door: an argument wins over the environment, the environment over the project file, that over the
default. The project file is the nearest `stepwell.yaml`, or `pyproject.toml` with a table `[tool.stepwell]`, from
the current folder upwards.

Called by the runtime, by plugins and by the commands. It reads files and the environment; it imports nobody's code
and writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stepwell.domain.errors import InvalidDefinition, NotFound

STORE_VARIABLE: Final = "STEPWELL_STORE"
APP_VARIABLE: Final = "STEPWELL_APP"
DEFAULT_FOLDER: Final = ".stepwell"
DEFAULT_FILE: Final = "stepwell.db"
DEFAULT_APP: Final = "app.py"

_KEYS: Final = ("app", "store")
_SQLITE: Final = "sqlite:///"
_LARGEST_YAML: Final = 1024 * 1024
_MOST_VALUES: Final = 200_000
_TEXT_TAGS: Final = ("str", "timestamp", "merge")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it comes from, in words. Relative parts of an app start from `base`; a store's are already
    resolved.
    """

    value: str
    source: str
    base: Path


@dataclass(frozen=True, slots=True)
class Project:
    """A project file and what it says."""

    file: Path
    settings: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """The folder of the file, from which its relative paths start."""
        return self.file.parent

    def source(self, key: str) -> str:
        """Where a key of this file stands, in words."""
        return f"{self.file}" + (f" [tool.stepwell] {key}" if self.file.name == "pyproject.toml" else f": {key}")


class Unreadable(ValueError):
    """A YAML text that is not plain data. The message begins with `origin:line:column`, where a place is known."""


# ---------------------------------------------------------------- the two settings


def find_store(explicit: str | None = None, *, start: Path | None = None) -> Setting:
    """The store's URL. Without argument, environment and project file: `.stepwell/stepwell.db` beside the project file.

    `start` is the folder to look from (default: the current one). A relative SQLite path is resolved: against the
    project file's folder when it stands there, else against `start`. Where no project file is found,
    `pyproject.toml` without a table marks the project's folder, else it is `start`. Raises `InvalidDefinition` for
    a project file that cannot be read.
    """
    here = (start or Path.cwd()).absolute()
    given = _given(explicit, STORE_VARIABLE)
    if given is not None:
        value, source = given
        return Setting(_resolved_store(value, here), source, here)
    project = find_project(here)
    if project is not None and "store" in project.settings:
        value = _resolved_store(project.settings["store"], project.folder)
        return Setting(value, project.source("store"), project.folder)
    folder = project.folder if project is not None else _marked_folder(here)
    return Setting(f"{_SQLITE}{folder / DEFAULT_FOLDER / DEFAULT_FILE}", "default", folder)


def find_app(explicit: str | None = None, *, start: Path | None = None) -> Setting:
    """The app, as `file.py`, `module` or `module:attribute`. Without argument, environment and project file:
    `app.py` beside it.

    Raises `NotFound` (`app.unset`) when nothing names one, `InvalidDefinition` for a project file that cannot be read.
    """
    here = (start or Path.cwd()).absolute()
    given = _given(explicit, APP_VARIABLE)
    if given is not None:
        return Setting(*given, here)
    found = _app_of(find_project(here), here)
    if found is not None:
        return found
    raise NotFound(
        f"nothing names an app in {here}",
        code="app.unset",
        hint=f'name a file: stepwell run FILE.py; or set {APP_VARIABLE}, or app = "FILE.py" under [tool.stepwell]',
    )


def app_in(folder: Path) -> Setting:
    """The app of this very folder: named by a project file in it, else its `app.py`.

    Raises `NotFound` (`app.unset`) when there is neither, `InvalidDefinition` for a project file that cannot be read.
    """
    found = _app_of(_project_in(folder), folder)
    if found is not None:
        return found
    raise NotFound(
        f"{folder} has no {DEFAULT_APP}, and no project file that names an app",
        code="app.unset",
        hint="name a file in it, or write one there: stepwell init",
    )


def _app_of(project: Project | None, folder: Path) -> Setting | None:
    if project is not None and "app" in project.settings:
        return Setting(project.settings["app"], project.source("app"), project.folder)
    folder = project.folder if project is not None else folder
    if (folder / DEFAULT_APP).is_file():
        return Setting(DEFAULT_APP, f"default: {folder / DEFAULT_APP}", folder)
    return None


def store_file(url: str) -> Path | None:
    """The file behind a store's URL, or `None` when it is not a file."""
    return Path(url[len(_SQLITE) :]) if url.startswith(_SQLITE) and len(url) > len(_SQLITE) else None


def _given(explicit: str | None, variable: str) -> tuple[str, str] | None:
    """The argument, or the variable unless it is empty."""
    if explicit is not None:
        return explicit, "argument"
    value = os.environ.get(variable, "")
    return (value, f"environment: {variable}") if value else None


def _resolved_store(url: str, base: Path) -> str:
    path = store_file(url)
    return url if path is None else f"{_SQLITE}{base / path}"


def _marked_folder(here: Path) -> Path:
    return next((folder for folder in (here, *here.parents) if (folder / "pyproject.toml").is_file()), here)


# ---------------------------------------------------------------- the project file


def find_project(start: Path) -> Project | None:
    """The nearest project file from a folder upwards, read and checked; `None` when there is none.

    Raises `InvalidDefinition` for one that cannot be read, has unknown keys, or stands beside a second one.
    """
    return next((project for folder in (start, *start.parents) if (project := _project_in(folder))), None)


def _project_in(folder: Path) -> Project | None:
    yaml, toml = folder / "stepwell.yaml", folder / "pyproject.toml"
    table = _read_table(toml) if toml.is_file() else None
    if not yaml.is_file():
        return None if table is None else Project(toml, _checked(table, f"{toml} [tool.stepwell]"))
    if table is not None:
        raise InvalidDefinition(
            f"{folder} has two project files: stepwell.yaml, and [tool.stepwell] in pyproject.toml",
            code="config.twice",
            hint="keep one of them",
        )
    return Project(yaml, _checked(_read_yaml_settings(yaml), str(yaml)))


def _read_yaml_settings(path: Path) -> Any:
    try:
        return read_yaml(_read(path), str(path))
    except Unreadable as error:
        raise InvalidDefinition(str(error), code="config.syntax") from None


def _read_table(path: Path) -> Any:
    text = _read(path)
    if "stepwell" not in text:
        return None
    import tomllib

    try:
        tool = tomllib.loads(text).get("tool", {})
    except tomllib.TOMLDecodeError as error:
        raise InvalidDefinition(f"{path}: {error}", code="config.syntax") from None
    return tool.get("stepwell") if isinstance(tool, dict) else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDefinition(f"{path} cannot be read: {error}", code="config.unreadable") from error


def _checked(settings: Any, where: str) -> Mapping[str, str]:
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise InvalidDefinition(
            f"{where} is not a table of settings", code="config.shape", hint=f"keys: {', '.join(_KEYS)}"
        )
    for key, value in settings.items():
        if key not in _KEYS:
            import difflib

            near = difflib.get_close_matches(str(key), _KEYS, 1)
            hint = f"did you mean: {near[0]}" if near else f"keys: {', '.join(_KEYS)}"
            raise InvalidDefinition(f"{where} has no setting {key!r}", code="config.unknown_key", hint=hint)
        if not isinstance(value, str) or not value:
            raise InvalidDefinition(f"{where}: {key} is {value!r}, and it must be a text", code="config.type")
    return settings


# ---------------------------------------------------------------- YAML


def read_yaml(text: str, origin: str) -> Any:
    """The plain data of a YAML 1.2 text: objects, lists, text, numbers, booleans, null. Dates stay the text that
    they are.

    Raises `Unreadable`, beginning with `origin:line:column`, for anything else: broken syntax, a key that is given
    twice, a tag, more than one document, nesting without end, aliases that stand for more than 200,000 values, and
    text of more than 1 MiB.
    """
    if len(text) > _LARGEST_YAML:
        raise Unreadable(f"{origin} has {len(text):,} characters, and YAML is read up to {_LARGEST_YAML:,}")
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _plain_constructor()
    try:
        node = yaml.compose(text)
        if node is None:
            return None
        _bound(node, origin)
        return yaml.constructor.construct_document(node)
    except Unreadable:
        raise
    except DuplicateKeyError as error:
        raise Unreadable(f"{_place(error.problem_mark, origin)}: this key is given twice") from None
    except MarkedYAMLError as error:
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        place = _place(error.problem_mark or error.context_mark, origin)
        raise Unreadable(f"{place}: {_first_line(problem)}") from None
    except (YAMLError, ValueError) as error:
        raise Unreadable(f"{origin}: {_first_line(str(error))}") from None
    except RecursionError:
        raise Unreadable(f"{origin} is nested too deeply") from None


def _first_line(problem: str) -> str:
    return problem.strip().splitlines()[0] if problem.strip() else "broken"


def _place(mark: Any, origin: str) -> str:
    return f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin


def _plain_constructor() -> Any:
    """A constructor that knows the types of JSON and no other: dates stay text, tags are refused."""
    from ruamel.yaml.constructor import SafeConstructor

    class PlainConstructor(SafeConstructor):
        pass

    core = "tag:yaml.org,2002:"
    known = SafeConstructor.yaml_constructors
    kept = {f"{core}{name}": known[f"{core}{name}"] for name in ("str", "int", "float", "bool", "null", "seq", "map")}
    PlainConstructor.yaml_constructors = {**kept, f"{core}timestamp": known[f"{core}str"], None: known[None]}
    return PlainConstructor


def _bound(root: Any, origin: str) -> None:
    """Refuse keys that are not text, and aliases that contain themselves or multiply: written small, they would
    fill the memory.
    """
    sizes: dict[int, int] = {}
    unfinished: set[int] = set()

    def size(node: Any) -> int:
        if not isinstance(node.value, list):
            return 1
        if id(node) in unfinished:
            raise Unreadable(f"{_place(node.start_mark, origin)}: this contains itself")
        if id(node) not in sizes:
            unfinished.add(id(node))
            sizes[id(node)] = 1 + sum(size(part) for part in _parts(node, origin))
            unfinished.discard(id(node))
        return sizes[id(node)]

    if size(root) > _MOST_VALUES:
        raise Unreadable(f"{origin}: its aliases stand for more than {_MOST_VALUES:,} values")


def _parts(node: Any, origin: str) -> Iterator[Any]:
    for item in node.value:
        if not isinstance(item, tuple):
            yield item
            continue
        key, value = item
        if key.tag.rpartition(":")[2] not in _TEXT_TAGS:
            raise Unreadable(f"{_place(key.start_mark, origin)}: this key is not text; put it in quotes")
        yield value
