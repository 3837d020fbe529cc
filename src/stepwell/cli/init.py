"""`stepwell init`: a small project to start from. Refuses to overwrite anything."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from stepwell.cli.failures import OK
from stepwell.cli.terminal import DONE, bold, mark, say
from stepwell.domain.errors import Conflict, InvalidInput

APP: Final = '''\
"""A first agent: three steps, each done once and then remembered."""

import time

from stepwell import App, Context

app = App("hello")


def greet(name: str) -> str:
    return f"Hello, {name}!"


def think(greeting: str) -> str:
    time.sleep(5)  # stop it here with Ctrl-C or kill -9, then go on with: stepwell run hello --continue
    return greeting.replace("Hello", "Welcome back")


def shout(text: str) -> str:
    return text.upper()


@app.agent
async def hello(ctx: Context, name: str) -> str:
    """Greet somebody, slowly."""
    greeting = await ctx.step(greet, name)
    thought = await ctx.step(think, greeting)
    return await ctx.step(shout, thought)
'''
PROJECT: Final = """\
[project]
name = "hello"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["stepwell"]

[tool.stepwell]
app = "app.py"
"""
IGNORE: Final = """\
.stepwell/
.venv/
__pycache__/
"""
FILES: Final[Mapping[str, str]] = {"app.py": APP, "pyproject.toml": PROJECT, ".gitignore": IGNORE}


@click.command(short_help="Write a small project to start from.")
@click.argument("folder", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=".")
def init(folder: Path) -> int:
    """Write app.py with a first agent, pyproject.toml and .gitignore into DIR (default: here). Overwrites nothing."""
    present = [name for name in FILES if (folder / name).exists()]
    if present:
        raise Conflict(
            f"{folder / present[0]} is already there",
            code="init.exists",
            hint='choose an empty folder, or add to its pyproject.toml: [tool.stepwell] app = "FILE.py"',
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in FILES.items():
            (folder / name).write_text(content, encoding="utf-8")
            say(f"  {mark(DONE)} {folder / name}")
    except OSError as error:
        raise InvalidInput(
            f"{error.filename} cannot be written: {error.strerror}",
            code="init.unwritable",
            hint="name a folder that this user may write to: stepwell init DIR",
        ) from error
    say("try it:")
    if folder != Path("."):
        say(f"    {bold(f'cd {shlex.quote(str(folder))}')}")
    say(f"    {bold('stepwell run hello Ada')}")
    return OK
