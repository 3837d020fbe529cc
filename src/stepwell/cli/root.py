"""The command `stepwell`: its options, its commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from stepwell.cli.commands import Commands
from stepwell.cli.failures import INTERRUPTED, UNSUCCESSFUL, exit_code, tell, tell_unexpected, tell_usage
from stepwell.domain.errors import StepwellError

EXAMPLES = """\b
Examples:
  stepwell init shop && cd shop         write a small project
  stepwell run app.py Ada               run its agent; words are its input
  stepwell run app.py --continue        go on after a crash or Ctrl-C
  stepwell runs list                    what ran, and how it ended
  stepwell inbox                        what runs ask people
  stepwell worker app.py                execute whatever is queued
"""


_HOMES: Final = {
    "run": "run",
    "worker": "worker",
    "runs": "runs",
    "inbox": "inbox",
    "answer": "inbox",
    "sessions": "sessions",
    "queues": "queues",
    "agents": "agents",
    "check": "agents",
    "doctor": "doctor",
    "migrate": "migrate",
    "init": "init",
}


class Program(Commands):
    """A group that ends the process with our exit codes and tells errors as we tell them.

    Commands are imported when they are asked for, so that each pays for itself alone.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which a newcomer needs them."""
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        home = _HOMES.get(cmd_name)
        if home is None:
            return None
        command: click.Command = getattr(import_module(f"stepwell.cli.{home}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out the command; that the reader of its output leaves early is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _reader_left()

    def main(  # type: ignore[override]  # it always ends the process, in standalone mode or not
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        extra.pop("standalone_mode", None)
        args = sys.argv[1:] if args is None else list(args)
        with_traceback = "--traceback" in itertools.takewhile(lambda word: word.startswith("-"), args)
        try:
            code = super().main(args, prog_name or "stepwell", standalone_mode=False, **extra)
        except click.UsageError as error:
            tell_usage(error)
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except StepwellError as error:
            tell(error, with_traceback=with_traceback)
            sys.exit(exit_code(error))
        except Exception as error:  # noqa: BLE001 - the last resort: no raw traceback unless it is asked for
            tell_unexpected(error, with_traceback=with_traceback)
            sys.exit(UNSUCCESSFUL)
        sys.exit(code if isinstance(code, int) else 0)


def _reader_left() -> int:
    """Whoever read our output has gone: nothing more is written, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _show_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("stepwell")
        except PackageNotFoundError:  # a source tree that was never installed
            number = "(not installed)"
        click.echo(f"stepwell {number}")
        ctx.exit()


@click.group(cls=Program, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.option("--traceback", is_flag=True, expose_value=False, help="Show whole tracebacks with errors.")
def stepwell() -> None:
    """Run agents whose finished steps are remembered: across crashes, restarts and deploys."""
