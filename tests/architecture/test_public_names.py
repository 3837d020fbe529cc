"""The names that users import: they resolve, they explain themselves, and importing the package stays cheap."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import stepwell
from tests.checkout import PACKAGE, ROOT

HEAVY = ("anyio", "apsw", "click", "pydantic", "pydantic_core", "rich", "ruamel")


def names_for_type_checkers() -> set[str]:
    """What the package root imports for type checkers alone: the other half of its lazy names."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in guarded for node in ast.walk(block) if isinstance(node, ast.ImportFrom)]
    return {name.asname or name.name for node in imports for name in node.names}


def documented_parts(name: str) -> Iterator[tuple[str, object]]:
    """A public name and, if it is a class of ours, its own public methods and properties."""
    value = getattr(stepwell, name)
    yield name, value
    if inspect.isclass(value) and value.__module__.startswith("stepwell"):
        for attribute, part in vars(value).items():
            if not attribute.startswith("_") and (
                inspect.isroutine(part) or isinstance(part, property | staticmethod | classmethod)
            ):
                yield f"{name}.{attribute}", part


def test_every_public_name_resolves() -> None:
    missing = [name for name in stepwell.__all__ if not hasattr(stepwell, name)]
    assert missing == []
    assert len(stepwell.__all__) == len(set(stepwell.__all__))


def test_the_package_root_offers_nothing_beside_its_public_names() -> None:
    code = "import json, stepwell; print(json.dumps([n for n in dir(stepwell) if not n.startswith('_')]))"
    offered = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    # Submodules become attributes of a package when something imports them: a fact of Python, not of the surface.
    submodules = {path.stem for path in PACKAGE.iterdir()}
    assert set(offered) - submodules <= set(stepwell.__all__)
    assert set(offered) >= {name for name in stepwell.__all__ if not name.startswith("_")}


def test_type_checkers_see_the_same_names_as_the_interpreter() -> None:
    lazy = names_for_type_checkers()
    eager = {name for name in vars(stepwell) if name in stepwell.__all__} - lazy
    assert lazy | eager == set(stepwell.__all__)


def test_every_public_name_has_a_docstring() -> None:
    undocumented = [
        part_name
        for name in stepwell.__all__
        for part_name, part in documented_parts(name)
        if (inspect.isclass(part) or inspect.isroutine(part) or isinstance(part, property))
        and not (part.__doc__ or "").strip()
    ]
    assert undocumented == []


def test_a_dataclass_is_not_documented_by_its_generated_signature() -> None:
    generated = [
        name
        for name in stepwell.__all__
        if inspect.isclass(value := getattr(stepwell, name)) and (value.__doc__ or "").startswith(f"{name}(")
    ]
    assert generated == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import json, sys, stepwell; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert "stepwell" in loaded
    assert [name for name in loaded if name.partition(".")[0] in HEAVY] == []


def test_the_command_named_in_the_project_file_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["stepwell"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
