"""Every module imports by itself, and the examples in its docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

from tests.checkout import ROOT, Source, package_sources

MODULES = [source for source in package_sources() if source.path.stem != "__main__"]


def module_name(source: Source) -> str:
    """The dotted name of a source file of the package."""
    parts = source.path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", [module_name(source) for source in MODULES])
def test_the_examples_of_a_module_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    ran = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert ran.failed == 0
