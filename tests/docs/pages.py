"""Runs the code of one Markdown page as a reader would: from top to bottom, in an empty folder.

    ```python                    runs; all of a page share one namespace; `await` may stand at the top level
    ```python title="hello.py"   is written as a file; the same for YAML, TOML, JSON and text
    ```python no-run             is only compiled
    ```console                   if a line starts with `$ stepwell`, its commands run and their output is compared
    ```console no-run            is left alone

In expected output `...` stands for anything; durations, ids and times need not match; amounts of white space never
matter. A command without expected output must end with 0.

`tests/docs/test_pages.py` starts this file as a program, once for each page: the page's code becomes the program's
`__main__`, so that classes and functions of a page behave like those of a script.
"""

import ast
import asyncio
import doctest
import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w+-]*)(?P<marks>.*)$")
TITLE = re.compile(r'title="([^"]+)"')

VOLATILE = [
    (re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), ""),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:\.\d+)?\b"), "<time>"),
    (re.compile(r"\b[a-z]{1,4}_[0-9a-z]{26}\b|…[0-9a-z]{4,26}\b"), "<id>"),
    (re.compile(r"\b\d+(?:\.\d+)? ?(?:µs|ms|s|min|m|h)\b"), "<duration>"),
    (re.compile(r"<duration>(?: <duration>)+"), "<duration>"),
    (re.compile(r"\bpid \d+"), "pid <number>"),
    (re.compile("…"), "..."),
]


class Block(NamedTuple):
    """A fenced block: its language, the name of the file it shows, whether it may run, its text and first line."""

    language: str
    title: str | None
    may_run: bool
    text: str
    line: int

    @property
    def is_script(self) -> bool:
        """Python that runs in the namespace of the page."""
        return self.language == "python" and self.title is None and self.may_run

    @property
    def is_session(self) -> bool:
        """Commands that run, with their output."""
        return self.language == "console" and self.may_run and bool(re.search(r"^\$ .*\bstepwell ", self.text, re.M))


class Command(NamedTuple):
    """A line after `$ ` and what the page shows below it."""

    text: str
    expected: str


class PageError(Exception):
    """A page promises what does not happen."""


def blocks(markdown: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order. Raises PageError if the last one is never closed."""
    lines = iter(enumerate(markdown.splitlines(), 1))
    for number, line in lines:
        if not (opening := FENCE.match(line)):
            continue
        body = []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            body.append(inner)
        else:
            raise PageError(f"line {number}: this fence is never closed")
        marks = opening["marks"]
        title = TITLE.search(marks)
        text = textwrap.dedent("\n".join(body)) + "\n"
        yield Block(opening["language"], title[1] if title else None, "no-run" not in marks, text, number + 1)


def commands(session: str) -> list[Command]:
    """The commands of a console block; `> ` and a trailing backslash continue one."""
    found: list[Command] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], ""))
        elif found and not found[-1].expected and (line.startswith("> ") or found[-1].text.endswith("\\")):
            found.append(Command(f"{found.pop().text}\n{line.removeprefix('> ')}", ""))
        elif found:
            last = found.pop()
            found.append(Command(last.text, f"{last.expected}{line}\n"))
    return found


def agree(expected: str, actual: str) -> bool:
    """Whether output is what a page shows, leaving aside `...`, white space and what differs from run to run."""
    for pattern, name in VOLATILE:
        expected, actual = pattern.sub(name, expected), pattern.sub(name, actual)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(expected.strip(), actual.strip(), flags)


def run_session(block: Block, folder: Path, environment: dict[str, str]) -> None:
    """Run the commands of a console block and compare what they print. Raises PageError."""
    for command in commands(block.text):
        ended = subprocess.run(
            command.text,
            shell=True,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        shown = f"line {block.line}: $ {command.text}\n"
        if not command.expected.strip() and ended.returncode != 0:
            raise PageError(f"{shown}ended with {ended.returncode}:\n{ended.stdout}")
        if command.expected.strip() and not agree(command.expected, ended.stdout):
            raise PageError(f"{shown}--- the page shows\n{command.expected}--- it printed\n{ended.stdout}")


def reader_environment(folder: Path) -> dict[str, str]:
    """The environment of somebody who follows the page: `stepwell` on PATH, no settings, plain output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPWELL_")}
    programs = folder / ".programs"
    programs.mkdir()
    start = "import sys; from stepwell.cli import main; sys.argv[0] = 'stepwell'; sys.exit(main())"
    (programs / "stepwell").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{start}" "$@"\n')
    (programs / "stepwell").chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return kept | {"PATH": path, "NO_COLOR": "1", "COLUMNS": "120", "TERM": "dumb", "HOME": str(folder)}


def run_script(block: Block, script: Path, page: ModuleType, runner: asyncio.Runner) -> None:
    """Add a block to the page's script, on the line where it stands in the page, and execute it."""
    written = script.read_text().count("\n") if script.exists() else 0
    with script.open("a") as file:
        file.write("\n" * (block.line - 1 - written) + block.text)
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(script), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        runner.run(FunctionType(code, vars(page))())
    else:
        exec(code, vars(page))  # noqa: S102 - the pages are ours


def check_syntax(block: Block) -> None:
    """Raise SyntaxError if a Python block does not compile."""
    source = "\n" * (block.line - 1) + block.text
    compile(source, block.title or "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def run_page(markdown: str, folder: Path) -> None:
    """Run everything a page shows, in order, in an empty folder. Raises PageError, or what a script block raises."""
    environment = reader_environment(folder)
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = str(folder)  # where the page's files are, instead of where this program is
    script = folder / "page.py"
    page = sys.modules["__main__"] = ModuleType("__main__")
    page.__file__ = str(script)
    with asyncio.Runner() as runner:
        for block in blocks(markdown):
            if block.language == "python":
                check_syntax(block)
            if block.title and block.may_run:
                (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.title).write_text(block.text, encoding="utf-8")
            elif block.is_script:
                run_script(block, script, page, runner)
            elif block.is_session:
                run_session(block, folder, environment)


if __name__ == "__main__":
    try:
        run_page(Path(sys.argv[1]).read_text(encoding="utf-8"), Path(sys.argv[2]))
    except PageError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
