"""From what a person types (`hello.py`, `hello.py:agent`, `folder`, `module:app`, `agent`) to an `App` and an agent.

The runtime hands `load_target` on to the commands. What is found is imported by `stepwell.plugins.importing`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from stepwell.app import Agent, App
from stepwell.config import Setting, app_in, find_app
from stepwell.domain.errors import InvalidDefinition, NotFound
from stepwell.plugins.importing import import_file, import_name, is_module, last_name, not_python, shown

_LISTED: Final = 6  # files that an error names when none of them is near
_FILE: Final = re.compile(r"(?P<file>.+?\.py)(?::(?P<agent>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """An app, the agent that was named with it (if one was), and where both come from, as a person would write it."""

    app: App[Any]
    agent: Agent[Any, Any] | None
    origin: str


def load_target(text: str | None = None) -> Target:
    """Import what a target names. Forms: an agent of the project's app, `FILE.py[:AGENT]`, `DIR[:AGENT]`,
    `MODULE:APP[:AGENT]`.

    Without a target: the project's app (config.find_app). In a module the only `App` is taken, whatever its name.
    Raises `NotFound` (`target.missing`, `agent.unknown`, `app.unset`) with near matches, and `InvalidDefinition`:
    `app.missing`, `app.ambiguous`, `target.kind`, `target.syntax`, `target.import` (its notes hold the user's
    frames), or what the module raised.
    """
    if text is None:
        return _from_setting(find_app(), None)
    parts = _FILE.fullmatch(text)
    if parts is not None:
        return _from_file(Path(parts["file"]), parts["agent"] or None)
    place, _, rest = text.partition(":")
    if os.sep in place or place in (".", ".."):
        return _from_path(Path(place), rest or None)
    if ":" in text:
        return _from_name(place, rest, text)
    return _from_word(text)


# ---------------------------------------------------------------- the forms


def _from_setting(setting: Setting, agent: str | None) -> Target:
    parts = _FILE.fullmatch(setting.value)
    if parts is None:
        module, _, attribute = setting.value.partition(":")
        return _from_module(module, attribute or None, agent, setting.base)
    path = setting.base / parts["file"]
    if not path.exists():
        raise NotFound(f"there is no file {shown(path)}, named as the app by {setting.source}", code="target.missing")
    return _with_agent(_only_app(import_file(path), parts["agent"], shown(path)), agent, shown(path))


def _from_file(path: Path, agent: str | None) -> Target:
    if not path.exists():
        raise _missing(path)
    return _with_agent(_only_app(import_file(path), None, shown(path)), agent, shown(path))


def _from_path(path: Path, agent: str | None) -> Target:
    if path.is_dir():
        return _from_setting(app_in(path.absolute()), agent)
    if path.exists():
        raise not_python(path)
    raise _missing(path)


def _from_name(place: str, rest: str, text: str) -> Target:
    """`MODULE:APP[:AGENT]`, `DIR:AGENT`, or an agent of the project whose name has a colon."""
    if is_module(place, Path.cwd()):
        attribute, _, agent = rest.partition(":")
        return _from_module(place, attribute or None, agent or None, Path.cwd())
    if Path(place).is_dir():
        return _from_path(Path(place), rest or None)
    project = _project_app()
    if project is not None and text in project.app.agents:
        return _with_agent(project.app, text, project.origin)
    raise NotFound(
        f"there is no module {place!r}", code="target.missing", hint="name a file (FILE.py:AGENT), or MODULE:APP"
    )


def _from_word(word: str) -> Target:
    project = _project_app()
    path = Path(word)
    if path.exists() and (project is None or word not in project.app.agents):
        return _from_path(path, None)
    if project is not None:
        return _with_agent(project.app, word, project.origin)
    with_ending = path.with_name(f"{word}.py")
    hint = f"did you mean: {with_ending}" if with_ending.is_file() else "name a file: stepwell run FILE.py"
    raise NotFound(f"there is no app here that could have an agent {word!r}", code="app.unset", hint=hint)


def _project_app() -> Target | None:
    try:
        setting = find_app()
    except NotFound:
        return None
    return _from_setting(setting, None)


# ---------------------------------------------------------------- choosing in a module


def _from_module(name: str, attribute: str | None, agent: str | None, base: Path) -> Target:
    origin = f"{name}:{attribute}" if attribute else name
    if not is_module(name, base):
        raise NotFound(f"there is no module {name!r}", code="target.missing", hint=f"looked from {base}")
    return _with_agent(_only_app(import_name(name), attribute, name), agent, origin)


def _only_app(module: ModuleType, attribute: str | None, origin: str) -> App[Any]:
    found = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, App)}
    if attribute is not None:
        return _named_app(module, attribute, origin, [name for name, _ in found.values()])
    if len(found) > 1:
        names = [name for name, _ in found.values()]
        raise InvalidDefinition(
            f"{origin} has {len(found)} apps: {', '.join(names)}",
            code="app.ambiguous",
            hint=f"keep one App in a module, or name one: {module.__name__}:{names[0]}",
        )
    if not found:
        raise InvalidDefinition(
            f"{origin} has no App", code="app.missing", hint=f'write one: app = App("{last_name(module)}")'
        )
    return next(value for _, value in found.values())


def _named_app(module: ModuleType, attribute: str, origin: str, known: Iterable[str]) -> App[Any]:
    value = vars(module).get(attribute)
    if isinstance(value, App):
        return value
    what = "nothing" if value is None else f"a {type(value).__name__}, not an App,"
    hint = _near(attribute, known) or "; ".join(f"{origin} has the app: {name}" for name in known) or None
    raise NotFound(f"{origin} has {what} named {attribute!r}", code="app.unknown", hint=hint)


def _with_agent(app: App[Any], name: str | None, origin: str) -> Target:
    if name is None:
        return Target(app, None, origin)
    agent = app.agents.get(name)
    if agent is None:
        hints = (_near(name, app.agents), f"see: stepwell agents list {origin}")
        raise NotFound(
            f"no agent {name!r} in {origin}", code="agent.unknown", hint="\n".join(hint for hint in hints if hint)
        )
    return Target(app, agent, origin)


def _missing(path: Path) -> NotFound:
    folder = path.parent
    siblings = sorted(file.name for file in folder.iterdir() if file.suffix == ".py") if folder.is_dir() else []
    there = f"there are: {', '.join(siblings)}" if 0 < len(siblings) <= _LISTED else "to begin one: stepwell init DIR"
    return NotFound(f"there is no file {path}", code="target.missing", hint=_near(path.name, siblings) or there)


def _near(name: str, known: Iterable[str]) -> str | None:
    import difflib

    folded = {key.casefold().replace("-", "_"): key for key in known}
    found = difflib.get_close_matches(name.casefold().replace("-", "_"), folded, 1)
    return f"did you mean: {folded[found[0]]}" if found else None
