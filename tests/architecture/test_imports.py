"""The import contracts hold, and would notice if they did not."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import PACKAGE, ROOT, Source, package_sources

PLANTED = {
    "domain/planted.py": "import asyncio",
    "ports/planted.py": "import stepwell.engine",
    "engine/planted.py": "import stepwell.agents",
    "agents/planted.py": "import pickle",
    "stores/sqlite/planted.py": "import stepwell.stores.memory",
    "cli/planted.py": "import stepwell.agents\nimport stepwell.stores",
    "testing/planted.py": "import stepwell.testing.planted_too",
    "testing/planted_too.py": "import stepwell.testing.planted",
    "helpers/__init__.py": "",
}
REPORTED = [
    "Imports point downwards, and siblings do not meet BROKEN",
    "stepwell.ports is not allowed to import stepwell.engine",
    "stepwell.engine is not allowed to import stepwell.agents",
    "Stores do not know each other BROKEN",
    "Only the runtime and the testing package choose an engine or a store BROKEN",
    "stepwell.cli.planted -> stepwell.stores",
    "Surfaces speak to the runtime alone BROKEN",
    "stepwell.cli.planted -> stepwell.agents",
    "The domain does no input or output and reads no clock BROKEN",
    "stepwell.domain.planted -> asyncio",
    "One SQLite in the process, and no values that run when they are read BROKEN",
    "stepwell.agents.planted -> pickle",
    "No cycles BROKEN",
    "stepwell.helpers",
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter in a folder that holds `.importlinter` and `src`."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )


def test_every_import_contract_holds() -> None:
    linted = lint_imports(ROOT)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says about a copy of the package in which every contract is broken once."""
    copy = tmp_path_factory.mktemp("planted")
    shutil.copy(ROOT / ".importlinter", copy)
    package = copy / "src" / "stepwell"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in PLANTED.items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(f'"""Planted."""\n\n{text}\n', encoding="utf-8")
    linted = lint_imports(copy)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    return " ".join(linted.stdout.split())


@pytest.mark.parametrize("finding", REPORTED)
def test_a_planted_import_is_reported(report: str, finding: str) -> None:
    assert finding in report


def imports_of_the_root(source: Source) -> list[int]:
    """The lines on which a module imports from the package root instead of from the module that owns the name."""
    found = []
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names) if any(name.name == "stepwell" for name in names):
                found.append(node.lineno)
            case ast.ImportFrom(module="stepwell", level=0):
                found.append(node.lineno)
            case ast.ImportFrom(module=None, level=level) if level and level == len(source.package.split(".")):
                found.append(node.lineno)
    return found


def test_no_module_imports_from_the_package_root() -> None:
    found = [f"{source.name}:{line}" for source in package_sources() for line in imports_of_the_root(source)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_root"),
    [
        ("import stepwell", True),
        ("from stepwell import App", True),
        ("from .. import App", True),
        ("from . import worker", False),
        ("from stepwell.engine import worker", False),
        ("import stepwell.engine.worker", False),
    ],
)
def test_an_import_from_the_root_is_recognised(text: str, is_root: bool) -> None:
    source = Source(PACKAGE / "engine" / "planted.py", [text], ast.parse(text))
    assert imports_of_the_root(source) == ([1] if is_root else [])
