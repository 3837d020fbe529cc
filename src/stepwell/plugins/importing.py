"""Imports a user's module as if it had been started: its folder on the import path, its own name, its failures told
in its terms.

Importing runs the module's code; nothing else here has an effect.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

from stepwell.domain.errors import InvalidDefinition, StepwellError

_ALIAS: Final = "stepwell_target_"
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SHOWN_FRAMES: Final = 10


def import_name(name: str) -> ModuleType:
    """Import a module by its dotted name. Raises as `import_file` does."""
    module: ModuleType = _guarded(lambda: importlib.import_module(name), name)
    return module


def is_module(name: str, base: Path) -> bool:
    """Whether a module of that name could be imported; a plain folder without code is none."""
    _put_on_path(base)
    importlib.invalidate_caches()
    parent = name.rpartition(".")[0]
    if parent:
        if not is_module(parent, base):
            return False
        import_name(parent)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def import_file(path: Path) -> ModuleType:
    """Import a file, under a name that is the same in every process.

    Raises `InvalidDefinition`: `target.kind`, `target.syntax`, `target.exit`, `target.import`, with the user's
    frames as notes; errors of ours that the module raises pass, with a note that says where.
    """
    if not path.is_file():
        raise not_python(path)
    path = path.absolute()
    name, top = _module_name(path)
    for folder in (path.parent, top):
        _put_on_path(folder)
    importlib.invalidate_caches()
    module: ModuleType = _guarded(lambda: _import_as(name, path), shown(path))
    return module


def _import_as(name: str, path: Path) -> ModuleType:
    """Import under the name that the file has on the import path; where that name means another file, under one of
    ours.
    """
    if "." not in path.stem and _leads_to(name, path):
        return importlib.import_module(name)
    alias = _ALIAS + re.sub(r"\W", "_", path.stem)
    known = sys.modules.get(alias)
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(alias, path)
    if spec is None or spec.loader is None:
        raise not_python(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:  # half a module must not be found by the next import; raised again
        del sys.modules[alias]
        raise
    return module


def _module_name(path: Path) -> tuple[str, Path]:
    """The dotted name of a file, through the packages that hold it, and the folder from which the name starts."""
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if names[-1] == "__init__":
        names.pop()
    return ".".join(names), folder


def _leads_to(name: str, path: Path) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return False
    return spec is not None and spec.has_location and spec.origin is not None and Path(spec.origin).samefile(path)


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def not_python(path: Path) -> InvalidDefinition:
    """The error for a path that is no Python file."""
    return InvalidDefinition(
        f"{path} is not a Python file",
        code="target.kind",
        hint="a target is FILE.py, a folder with one, MODULE:APP or an agent",
    )


def last_name(module: ModuleType) -> str:
    """The last part of a module's name, as its file spells it."""
    return module.__name__.removeprefix(_ALIAS).rpartition(".")[2]


# ---------------------------------------------------------------- failures of the user's code


def _guarded(load: Callable[[], Any], origin: str) -> Any:
    """Run an import and tell its failure in terms of the user's files."""
    try:
        return load()
    except StepwellError as error:
        for place in _user_frames(error)[-1:]:
            error.add_note(place)
        raise
    except SyntaxError as error:
        raise _syntax(error, origin) from error
    except SystemExit as error:
        told = InvalidDefinition(
            f"{origin} ended the program while it was imported",
            code="target.exit",
            hint='put what a script does under: if __name__ == "__main__":',
        )
        _raise_with_frames(told, error)
    except Exception as error:  # noqa: BLE001 - importing runs the user's code, which may raise anything
        told = InvalidDefinition(
            f"{origin} could not be imported: {type(error).__name__}: {error}",
            code="target.import",
            hint=_advice(error),
        )
        _raise_with_frames(told, error)


def _syntax(error: SyntaxError, origin: str) -> InvalidDefinition:
    place = f"{shown(Path(error.filename)) if error.filename else origin}:{error.lineno or 1}:{error.offset or 1}"
    told = InvalidDefinition(f"{place}: {error.msg}", code="target.syntax")
    if error.text:
        told.add_note(f"  {error.text.strip()}")
    return told


def _advice(error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install what provides {error.name.partition('.')[0]!r} into the environment that runs stepwell"
    return None


def _raise_with_frames(told: InvalidDefinition, error: BaseException) -> NoReturn:
    for frame in _user_frames(error)[-_SHOWN_FRAMES:]:
        told.add_note(frame)
    raise told from error


def _user_frames(error: BaseException) -> list[str]:
    """The frames that are neither ours nor the standard library's, innermost last, each with its line of code."""
    foreign = (_PACKAGE, sysconfig.get_paths()["stdlib"] + os.sep, "<frozen")
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(foreign)]
    return [f"{shown(Path(frame.filename))}:{frame.lineno} in {frame.name}\n  {frame.line}" for frame in own]


def shown(path: Path) -> str:
    """A path as a person would write it: from the current folder, when it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
