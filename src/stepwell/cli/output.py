"""Keeps stdout for a command's output: while a run executes, whatever else is printed there goes to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

Write = Callable[[str], None]


@contextmanager
def output_only() -> Iterator[Write]:
    """A writer of lines to stdout. Meanwhile the stdout of agents, steps and their subprocesses is stderr.

    Where Python's stdout is not the process's own (in a test), nothing is moved.
    """
    stdout = sys.__stdout__
    if stdout is None or sys.stdout is not stdout or stdout.fileno() != 1:
        yield click.echo
        return
    stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        # Unbuffered, so that nothing is left to be written when the reader has gone.
        yield lambda text: _write_all(kept, f"{text}\n".encode(stdout.encoding, "backslashreplace"))
    finally:
        stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def as_text(output: Any) -> str | None:
    """An output as it is written: text as it is, other values as JSON, nothing for `None`."""
    if output is None:
        return None
    return output.removesuffix("\n") if isinstance(output, str) else json.dumps(output, ensure_ascii=False, indent=2)
