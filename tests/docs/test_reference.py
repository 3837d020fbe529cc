"""The reference is what the code says, and a page that says something else is noticed."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import make_reference
from tests.checkout import ROOT


def test_the_reference_is_up_to_date() -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_reference.py", "--check"], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_page_that_says_something_else_is_noticed_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_reference, "FOLDER", tmp_path)
    assert make_reference.main([]) == 0
    assert make_reference.main(["--check"]) == 0
    (tmp_path / "errors.md").write_text("nothing ever fails\n", encoding="utf-8")
    (tmp_path / "cli.md").unlink()
    assert make_reference.main(["--check"]) == 1
    assert capsys.readouterr().err.split("\n")[:2] == [
        "docs/reference/cli.md is out of date; write it again with: make docs",
        "docs/reference/errors.md is out of date; write it again with: make docs",
    ]
    assert make_reference.main([]) == 0
    assert make_reference.main(["--check"]) == 0


def test_the_codes_of_errors_are_found_in_the_source(tmp_path: Path) -> None:
    import ast

    source = 'raise Conflict(f"run {run} is {status}", code="run.odd", hint="wait " "a bit")'
    (told,) = make_reference.told_in(ast.parse(source))
    assert told == ("run.odd", "Conflict", "run … is …", "wait a bit")
