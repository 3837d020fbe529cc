"""The catalogue of faults is whole, and what it names exists."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.checkout import ROOT

PAGE = ROOT / "docs" / "reliability" / "faults.md"
FAULTS = {
    "K": 22,
    "Z": 6,
    "C": 11,
    "D": 15,
    "P": 11,
    "R": 6,
    "N": 8,
    "X": 9,
    "V": 19,
    "S": 8,
    "H": 11,
    "T": 7,
    "L": 6,
    "A": 4,
    "E": 4,
    "W": 6,
    "O": 13,
}
"""How many faults of each letter there are."""

ROW = re.compile(r"^\| (?P<id>[A-Z]\d+) \|(?P<fault>[^|]*)\|(?P<answer>[^|]*)\|(?P<shown>[^|]*)\|$", re.MULTILINE)
TEST = re.compile(r"`(?P<path>[\w/]+\.py)::(?P<name>test_\w+)`")
COUNTS = re.compile(
    r"(\d+) faults: (\d+) shown by tests, (\d+) wait\s+for a feature that is not there yet, (\d+) do not apply"
)


class Row(NamedTuple):
    """One fault."""

    id: str
    fault: str
    answer: str
    shown: str

    @property
    def kinds(self) -> list[str]:
        """What kinds of answer stand in its last column."""
        rest = TEST.sub("", self.shown).replace("<br>", "").strip()
        found = ["test"] if TEST.search(self.shown) else []
        for kind, beginning in (("feature", "needs: "), ("reason", "does not apply: ")):
            if beginning in rest:
                found.append(kind)
                rest = (
                    rest.removeprefix(beginning) if rest.startswith(beginning) and len(rest) > len(beginning) else rest
                )
        return found if not (rest and found == ["test"]) else [*found, "words"]


def rows(markdown: str) -> list[Row]:
    """The faults of a page."""
    return [Row(*(cell.strip() for cell in found)) for found in ROW.findall(markdown)]


@cache
def functions(path: Path) -> frozenset[str]:
    """The names of the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def flaws(markdown: str) -> list[str]:
    """What is wrong with a catalogue."""
    found = rows(markdown)
    expected = [f"{letter}{number}" for letter, count in FAULTS.items() for number in range(1, count + 1)]
    wrong = [
        f"{fault} stands there {times} times" for fault, times in Counter(row.id for row in found).items() if times > 1
    ]
    wrong += [f"{fault} is missing" for fault in expected if fault not in {row.id for row in found}]
    wrong += [f"{row.id} is no fault" for row in found if row.id not in expected]
    wrong += [f"{row.id} has no words" for row in found if not row.fault or not row.answer]
    wrong += [f"{row.id} has not one kind of answer: {row.shown}" for row in found if len(row.kinds) != 1]
    for row in found:
        for path, name in TEST.findall(row.shown):
            file = ROOT / path
            if not (path.startswith(("tests/", "src/stepwell/testing/conformance/")) and file.is_file()):
                wrong.append(f"{row.id}: there is no {path}")
            elif name not in functions(file):
                wrong.append(f"{row.id}: there is no {name} in {path}")
    return wrong + wrong_counts(markdown, found)


def wrong_counts(markdown: str, found: list[Row]) -> list[str]:
    """Whether the page counts its rows rightly."""
    kinds = Counter(kind for row in found for kind in row.kinds)
    counted = (len(found), kinds["test"], kinds["feature"], kinds["reason"])
    told = COUNTS.search(markdown)
    if told is None or tuple(map(int, told.groups())) != counted:
        return [f"the page says {told and told.groups()}, and has {counted}"]
    return []


def test_every_fault_has_one_answer_and_every_test_that_is_named_exists() -> None:
    assert sum(FAULTS.values()) == 166
    assert flaws(PAGE.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("| K3 |", "| K2 |", "K2 stands there 2 times"),
        ("| K3 |", "| K2 |", "K3 is missing"),
        ("| O13 |", "| O14 |", "O14 is no fault"),
        ("::test_a_kill_at`", "::test_a_kill_nowhere`", "there is no test_a_kill_nowhere"),
        (
            "tests/unit/engine/test_steps.py",
            "tests/unit/engine/test_strolls.py",
            "there is no tests/unit/engine/test_strolls",
        ),
        ("needs: HTTP server", "", "V1 has not one kind of answer"),
        ("needs: HTTP server", "needs: ", "V1 has not one kind of answer"),
        ("needs: HTTP server", "perhaps later", "V1 has not one kind of answer"),
        ("does not apply: only", "does not apply: needs: only", "V14 has not one kind of answer"),
        ("166 faults", "167 faults", "the page says"),
        ("needs: webhooks", "does not apply: webhooks are for others", "the page says"),
    ],
)
def test_a_flaw_is_recognised(before: str, after: str, complaint: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert before in page
    assert any(complaint in flaw for flaw in flaws(page.replace(before, after, 1)))


def test_words_beside_a_test_are_no_answer() -> None:
    row = Row("K1", "a fault", "an answer", "`tests/docs/test_faults.py::test_a_flaw_is_recognised` and more")
    assert row.kinds == ["test", "words"]
