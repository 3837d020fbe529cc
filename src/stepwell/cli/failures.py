"""How errors look, and the exit codes that they end with.

error[agent.unknown]: no agent 'licence-audit' in audit.py
  did you mean: licence_audit
  see: stepwell agents list audit.py
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import click

from stepwell.cli.terminal import say
from stepwell.domain.errors import (
    Busy,
    Conflict,
    InvalidDefinition,
    InvalidInput,
    InvalidValue,
    NotFound,
    RunFailed,
    StepwellError,
    StoreError,
    WaitTimeout,
)

OK: Final = 0
UNSUCCESSFUL: Final = 1
USAGE: Final = 2
CONFIGURATION: Final = 3
NOT_FOUND: Final = 4
UNAVAILABLE: Final = 5
NOT_ENDED: Final = 6
INTERRUPTED: Final = 130

_EXIT_CODES: Final[Sequence[tuple[type[StepwellError], int]]] = (
    (RunFailed, UNSUCCESSFUL),
    (InvalidInput, USAGE),
    (InvalidValue, USAGE),
    (Conflict, USAGE),
    (InvalidDefinition, CONFIGURATION),
    (NotFound, NOT_FOUND),
    (StoreError, UNAVAILABLE),
    (Busy, UNAVAILABLE),
    (WaitTimeout, NOT_ENDED),
)


class UsageProblem(click.UsageError):
    """A command line that cannot be carried out, with advice of our own."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def exit_code(error: StepwellError) -> int:
    """The exit code that an error ends a command with."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), UNSUCCESSFUL)


def tell(error: StepwellError, *, with_traceback: bool = False) -> None:
    """Print an error, the user's frames that it carries, and what to do about it; the whole traceback if it was
    asked for.
    """
    if with_traceback:
        _print_traceback(error)
    notes = [line for note in getattr(error, "__notes__", ()) for line in note.split("\n")]
    tell_problem(error.code, error.message, [*notes, *(error.hint or "").split("\n")])


def tell_problem(code: str, message: str, more: Sequence[str] = ()) -> None:
    """Print `error[code]: message` and indented lines below it. Further lines of the message are indented too."""
    first, *rest = message.split("\n")
    say(f"{click.style(f'error[{code}]', fg='red', bold=True)}: {first}")
    for line in (*rest, *more):
        if line.strip():
            say(f"  {line.rstrip()}")


def tell_usage(error: click.UsageError) -> None:
    """Print what is wrong with a command line, and where its help is."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the help itself
        say(error.format_message())
        return
    hints = [error.hint] if isinstance(error, UsageProblem) and error.hint else []
    if isinstance(error, click.NoSuchOption) and error.option_name[1:2].isdigit():
        hints = ["words that begin with - go behind --, for example: stepwell run TARGET -- -5"]
    path = error.ctx.command_path if error.ctx is not None else "stepwell"
    tell_problem("usage", _lowered(error.format_message()), [*hints, f"see: {path} --help"])


def tell_unexpected(error: BaseException, *, with_traceback: bool) -> None:
    """Print an error that nobody foresaw: the user's frames, if it passed through any (a lifespan runs in commands),
    and nothing of ours unless the traceback was asked for.
    """
    if with_traceback:
        _print_traceback(error)
    frames = frame_lines(_user_frames(error))
    hint = [] if with_traceback else ["for the whole story: stepwell --traceback ..."]
    if isinstance(error, OSError) and error.strerror and not frames:
        place = f"{_from_here(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        tell_problem("system", f"{place}{error.strerror}", hint)
        return
    tell_problem("app.error" if frames else "unexpected", f"{type(error).__name__}: {error}", [*frames, *hint])


def frame_lines(frames: Sequence[str]) -> list[str]:
    """Frames as `file:line in function` with their line of code below, where the file is at hand."""
    import linecache

    lines = []
    for frame in frames:
        place, _, function = frame.rpartition(" in ")
        file, _, number = place.rpartition(":")
        lines.append(f"{_from_here(file)}:{number} in {function}")
        code = linecache.getline(file, int(number)).strip() if number.isdigit() else ""
        if code:
            lines.append(f"  {code}")
    return lines


def _user_frames(error: BaseException) -> list[str]:
    """The frames of an exception that are neither ours nor those of an installed package or the standard library."""
    import sysconfig
    import traceback

    paths = sysconfig.get_paths()
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    foreign = tuple(os.path.join(path, "") for path in {ours, paths["stdlib"], paths["purelib"], paths["platlib"]})
    frames = traceback.extract_tb(error.__traceback__)
    return [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in frames
        if not frame.filename.startswith((*foreign, "<"))
    ]


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)


def _from_here(file: str) -> str:
    here = os.path.join(os.getcwd(), "")
    return file.removeprefix(here)


def _lowered(message: str) -> str:
    """A message of the option parser as ours begin: in lower case, without a full stop."""
    message = message.strip().removesuffix(".")
    return message if message[:2].isupper() else message[:1].lower() + message[1:]
