"""What the commands are made of: a group that guesses at misspelled names, the options they share, and types of
their values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from stepwell.cli.failures import UsageProblem

if TYPE_CHECKING:
    _ParamType = click.ParamType[float, Any]
else:  # subscriptable from click 8.4 on only
    _ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Commands(click.Group):
    """A group of commands in the order of their declaration; a name that it does not know is answered with a guess."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise self._unknown(ctx, args[0])
        return super().resolve_command(ctx, args)

    def _unknown(self, ctx: click.Context, name: str) -> click.UsageError:
        import difflib

        near = difflib.get_close_matches(name, self.list_commands(ctx), 1)
        is_target = ctx.parent is None and (name.endswith(".py") or os.sep in name)
        hint = f"did you mean: {near[0]}" if near else f"did you mean: stepwell run {name}" if is_target else None
        error = UsageProblem(f"no command {name!r}", hint)
        error.ctx = ctx
        return error


class Duration(_ParamType):
    """`30`, `30s`, `5m`, `2s 500ms`, `1h`, `7d`: seconds, as a float."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration; anything else is a usage error."""
        if isinstance(value, float):
            return value
        text = value.strip()
        if re.fullmatch(r"\d+(?:\.\d+)?", text):
            return float(text)
        if not text or _PART.sub("", text).strip():
            self.fail(f"{value!r} is not a duration like 30s, 5m or 1h", param, ctx)
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def store_option(command: F) -> F:
    """`--store URL`."""
    return click.option(
        "--store", metavar="URL", help="The store: sqlite:///FILE. Else STEPWELL_STORE, or the project's."
    )(command)


def json_option(command: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON instead of text.")(command)


def person() -> str:
    """Who acts, for the record: the user of this process."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a process without a name for its user
        return "command line"
