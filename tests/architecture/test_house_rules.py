"""Rules of the house that a machine can check: sizes, broad excepts, words that never belong here."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.checkout import Source, package_sources, python_files

LINES_PER_MODULE = 500
LINES_PER_FUNCTION = 70

BANNED = re.compile(r"\b(?:TODO|FIXME|XXX|NotImplementedError|sqlite3|pickle|litellm)\b|(?<![\w.])(?:eval|exec)\(")
SKIP = re.compile(r"\bpytest\.(?:mark\.)?(?:skip|skipif|xfail|importorskip)\b")
# A poll between two looks at a condition may be this short; anything longer is a guess about time.
SLEEP = re.compile(r"\b(?:time|asyncio|anyio)\.sleep\(\s*(?:[1-9]|0?\.[1-9])")


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a module, methods and inner ones too."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def unexplained_excepts(source: Source) -> Iterator[str]:
    """Handlers that catch everything and carry no comment on their line."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = {getattr(name, "id", "") for name in ast.walk(node.type)} if node.type else {"Exception"}
            reason = source.lines[node.lineno - 1].partition("#")[2]
            reason = re.sub(r"noqa: [A-Z0-9, ]+", "", reason).strip(" -#")
            if caught & {"Exception", "BaseException"} and not reason:
                yield f"{source.name}:{node.lineno}"


def lines_with(pattern: re.Pattern[str], source: Source) -> Iterator[str]:
    """The lines of a file that a pattern finds, as `file:line: text`."""
    for number, line in enumerate(source.lines, 1):
        if pattern.search(line):
            yield f"{source.name}:{number}: {line.strip()}"


def test_no_module_grows_beyond_its_size() -> None:
    assert [s.name for s in package_sources() if len(s.lines) > LINES_PER_MODULE] == []


def test_no_function_grows_beyond_its_size() -> None:
    long = [
        f"{source.name}:{node.lineno} {node.name}"
        for source in package_sources()
        for node in functions(source)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > LINES_PER_FUNCTION
    ]
    assert long == []


def test_every_module_says_what_it_holds() -> None:
    assert [s.name for s in package_sources() if not (ast.get_docstring(s.tree) or "").strip()] == []


def test_every_broad_except_gives_its_reason_on_its_line() -> None:
    assert [where for source in package_sources() for where in unexplained_excepts(source)] == []


def test_no_banned_word_stands_in_the_package() -> None:
    assert [line for source in package_sources() for line in lines_with(BANNED, source)] == []


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    assert [line for source in python_files("tests") for line in lines_with(SKIP, source)] == []


def test_no_test_waits_for_a_time() -> None:
    assert [line for source in python_files("tests") for line in lines_with(SLEEP, source)] == []


def planted(text: str) -> Source:
    """A module of the package with the given text."""
    return Source(package_sources()[0].path, text.splitlines(), ast.parse(text))


@pytest.mark.parametrize(
    ("line", "is_reported"),
    [
        ("except Exception:", True),
        ("except (OSError, BaseException) as error:", True),
        ("except:", True),
        ("except Exception:  # noqa: BLE001", True),
        ("except Exception:  # noqa: BLE001 - the agent's own error becomes its outcome", False),
        ("except BaseException:  # cleans up and raises again", False),
        ("except OSError:", False),
    ],
)
def test_a_broad_except_without_a_reason_is_recognised(line: str, is_reported: bool) -> None:
    assert bool(list(unexplained_excepts(planted(f"try:\n    f()\n{line}\n    g()\n")))) is is_reported


@pytest.mark.parametrize(
    ("pattern", "text", "is_found"),
    [
        (BANNED, "import " + "sqlite3", True),
        (BANNED, "raise " + "NotImplementedError", True),
        (BANNED, "value = ev" + "al(text)", True),
        (BANNED, "value = expressions.evaluate(text)", False),
        (SKIP, "@pytest.mark." + "skipif(True)", True),
        (SKIP, "self.skipped += 1", False),
        (SLEEP, "await asyncio." + "sleep(0.5)", True),
        (SLEEP, "time." + "sleep(2)", True),
        (SLEEP, "await asyncio." + "sleep(0.01)", False),
    ],
)
def test_a_banned_word_is_recognised(pattern: re.Pattern[str], text: str, is_found: bool) -> None:
    assert bool(pattern.search(text)) is is_found
