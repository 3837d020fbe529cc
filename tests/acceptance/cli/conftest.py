"""A project in an empty folder, and the real command in real processes on it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.checkout import ROOT

LONGEST = 30.0


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


class Command:
    """A command under way. What it writes lies in files, so that no pipe fills up."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        """What was written to stdout until now."""
        return self._out.read_text(encoding="utf-8", errors="surrogateescape")

    @property
    def err(self) -> str:
        """What was written to stderr until now."""
        return self._err.read_text(encoding="utf-8", errors="surrogateescape")

    def shows(self, text: str) -> None:
        """Wait until the text is on stderr."""
        self.reaches(lambda: text in self.err)

    def reaches(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; fail as soon as it cannot any more, because the command has ended."""
        wait_until(lambda: condition() or self.process.poll() is not None)
        assert condition(), self.err

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(number)

    def ends(self) -> Done:
        """Wait for the end."""
        code = self.process.wait(LONGEST)
        return Done(code, self.out, self.err)


class Terminal:
    """A command whose stdin and stderr are a terminal; its stdout is a file."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int, out: Path) -> None:
        self.process = process
        self._descriptor = descriptor
        self._out = out
        self._seen = b""
        self._past = 0

    @property
    def text(self) -> str:
        """What stood on the terminal until now, without colours and movements."""
        self._read()
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._seen.decode(errors="replace")).replace("\r", "")

    def shows(self, text: str) -> None:
        """Wait until the text is there, behind what was waited for before."""
        wait_until(lambda: text in self.text[self._past :] or self.process.poll() is not None)
        assert text in self.text[self._past :], self.text
        self._past = self.text.index(text, self._past) + len(text)

    def types(self, text: str) -> None:
        """Type it."""
        os.write(self._descriptor, text.encode())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(number)

    def ends(self) -> Done:
        """Wait for the end, reading on, so that the terminal does not fill up."""
        wait_until(lambda: self.text != "\0" and self.process.poll() is not None)
        return Done(self.process.wait(), self._out.read_text(), self.text)

    def _read(self) -> None:
        while select.select([self._descriptor], [], [], 0)[0]:
            try:
                piece = os.read(self._descriptor, 65_536)
            except OSError:  # the command has ended, and with it the terminal
                return
            if not piece:
                return
            self._seen += piece

    def close(self) -> None:
        """Let go of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._descriptor)


class Project:
    """A folder with files, and `stepwell` in it."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder = folder
        self._logs = logs
        self._commands: list[Command] = []
        self._terminals: list[Terminal] = []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STEPWELL_")}
        path = os.pathsep.join(part for part in (str(ROOT / "src"), os.environ.get("PYTHONPATH")) if part)
        self.environment = inherited | {"PYTHONPATH": path, "NO_COLOR": "1"}

    def write(self, name: str, text: str | bytes) -> Path:
        """A file of the project."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def read(self, name: str) -> str:
        """The text of a file, empty where there is none."""
        file = self.folder / name
        return file.read_text() if file.exists() else ""

    def start(
        self, *words: str | bytes, stdin: bytes | None = None, environment: Mapping[str, str] | None = None
    ) -> Command:
        """Start `stepwell WORDS` and leave it to itself."""
        number = len(self._commands)
        out, err = self._logs / f"{number}.out", self._logs / f"{number}.err"
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "stepwell", *words],
                cwd=self.folder,
                env=self.environment | dict(environment or {}),
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=out_file,
                stderr=err_file,
            )
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
        command = Command(process, out, err)
        self._commands.append(command)
        return command

    def stepwell(
        self, *words: str | bytes, stdin: bytes | None = None, environment: Mapping[str, str] | None = None
    ) -> Done:
        """Run `stepwell WORDS` to its end."""
        return self.start(*words, stdin=stdin, environment=environment).ends()

    def terminal(self, *words: str) -> Terminal:
        """Start `stepwell WORDS` on a terminal of its own."""
        out = self._logs / f"terminal{len(self._terminals)}.out"
        mine, its = pty.openpty()
        with out.open("wb") as out_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "stepwell", *words],
                cwd=self.folder,
                env=self.environment,
                stdin=its,
                stdout=out_file,
                stderr=its,
                start_new_session=True,
            )
        os.close(its)
        made = Terminal(process, mine, out)
        self._terminals.append(made)
        return made

    def end_everything(self) -> None:
        """Leave no process behind."""
        for terminal in self._terminals:
            terminal.close()
        for command in self._commands:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; fail when it never does."""
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, "waited for something that did not happen"
        time.sleep(0.01)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """An empty project."""
    folder, logs = tmp_path / "project", tmp_path / "logs"
    folder.mkdir()
    logs.mkdir()
    made = Project(folder, logs)
    yield made
    made.end_everything()
