"""The README and every page of the documentation do what they show."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT, markdown_files
from tests.docs.pages import agree, blocks, commands

README = ROOT / "README.md"
DOCS = [page for page in markdown_files() if page.is_relative_to(ROOT / "docs")]
WITH_CODE = [README, *(page for page in DOCS if re.search("```(python|console)", page.read_text(encoding="utf-8")))]


def run(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page in a folder of its own."""
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("pages.py"), page, folder],
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_does_what_it_shows(page: Path, tmp_path: Path) -> None:
    ended = run(page, tmp_path)
    assert ended.returncode == 0, f"\n{ended.stdout}{ended.stderr}"


def test_the_readme_shows_a_program_and_how_to_run_it() -> None:
    shown = list(blocks(README.read_text(encoding="utf-8")))
    assert [block for block in shown if block.language == "python" and block.may_run]
    assert [block for block in shown if block.is_session]


SCRIPT = """
```python
from dataclasses import dataclass

@dataclass
class Order:
    id: int
```
text
```python
import asyncio
await asyncio.sleep(0)
assert Order(1).id == 1 and __name__ == "__main__"
```
"""
FILES = """
```python title="shop/hello.py"
print("hello", 1 + 1, "in 12 ms")
```
```python
from shop.hello import __name__ as name
assert name == "shop.hello"
```
```console
$ stepwell --version; python shop/hello.py
...hello 2 in 400 ms
```
"""
LEFT_ALONE = """
```python no-run
await anything(at_all)
```
```console
$ git clone nowhere
```
```console no-run
$ stepwell sing
```
"""


@pytest.mark.parametrize("markdown", [SCRIPT, FILES, LEFT_ALONE], ids=["script", "files", "left alone"])
def test_a_true_page_passes(markdown: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(markdown, encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    ended = run(page, folder)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("markdown", "complaint"),
    [
        (SCRIPT.replace("id == 1", "id == 2"), 'page.py", line 13'),
        (FILES.replace("hello 2", "hello 3"), "the page shows"),
        ("```console\n$ stepwell --version; exit 3\n```\n", "ended with 3"),
        (LEFT_ALONE.replace("await anything", "await await"), "SyntaxError"),
        ("```python\n", "never closed"),
    ],
    ids=["wrong script", "wrong output", "failing command", "bad syntax", "open fence"],
)
def test_a_false_page_fails(markdown: str, complaint: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(markdown, encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    ended = run(page, folder)
    assert ended.returncode != 0
    assert complaint in ended.stderr


def test_a_session_is_cut_into_commands_and_what_they_print() -> None:
    session = "$ stepwell run a.py \\\n  --json\none\n\ntwo\n$ stepwell runs list\n"
    assert commands(session) == [
        ("stepwell run a.py \\\n  --json", "one\n\ntwo\n"),
        ("stepwell runs list", ""),
    ]


@pytest.mark.parametrize(
    ("expected", "actual", "is_same"),
    [
        ("done in 12 ms", "done in 1.5s", True),
        ("done in 2m 3s", "done in 4s", True),
        ("run_01h00000000000000000000000 ended", "run_01h11111111111111111111111 ended", True),
        ("at 2026-01-02T03:04:05Z", "at 2027-01-02T03:04:05.678Z", True),
        ("first\n...\nlast", "first\nmore\nmore\nlast", True),
        ("a  b", "a      b", True),
        ("3 steps", "4 steps", False),
        ("succeeded in 3 s", "failed in 3 s", False),
    ],
)
def test_output_is_compared_without_what_differs_from_run_to_run(expected: str, actual: str, is_same: bool) -> None:
    assert agree(expected, actual) is is_same
