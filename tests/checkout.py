"""What the tests of the checkout read: the files of the checkout and the syntax trees of the package.

Only tests use it. It never imports `stepwell`: a module that does not import is still read and judged.
"""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "stepwell"


class Source(NamedTuple):
    """One Python file: where it lies, its lines and its tree."""

    path: Path
    lines: list[str]
    tree: ast.Module

    @property
    def name(self) -> str:
        """The path as a person would type it, from the top of the checkout."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def package(self) -> str:
        """The dotted package that relative imports of this file start from."""
        return ".".join(self.path.relative_to(ROOT / "src").parent.parts)


@cache
def files() -> tuple[Path, ...]:
    """Every file that a clone would hold: the tracked ones and the new ones that nothing ignores."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = (ROOT / name for name in sorted(set(listing.stdout.split("\0"))) if name)
    return tuple(path for path in paths if path.is_file())


def python_files(*folders: str) -> Iterator[Source]:
    """The Python files below the given folders of the checkout, parsed."""
    tops = [ROOT / folder for folder in folders]
    for path in files():
        if path.suffix == ".py" and any(path.is_relative_to(top) for top in tops):
            text = path.read_text(encoding="utf-8")
            yield Source(path, text.splitlines(), ast.parse(text, filename=str(path)))


@cache
def package_sources() -> tuple[Source, ...]:
    """Every module of the package, parsed once."""
    return tuple(python_files("src"))


def markdown_files() -> tuple[Path, ...]:
    """Every Markdown page of the checkout."""
    return tuple(path for path in files() if path.suffix == ".md")
