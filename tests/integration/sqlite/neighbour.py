"""Another process that has the store open: started, told what to do, stopped and killed by tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("program.py")


class Neighbour:
    """One running `program.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, path: Path) -> Neighbour:
        """Start a process and wait until it has the store open."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM), str(path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        neighbour = cls(process)
        assert await neighbour.answer() == "open"
        return neighbour

    def tell(self, *command: Any) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def answer(self) -> Any:
        """The next answer."""
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            line = await self._process.stdout.readline()
        assert line, "the process ended without an answer"
        return json.loads(line)

    async def ask(self, *command: Any) -> Any:
        """Give a command and wait for the answer."""
        self.tell(*command)
        return await self.answer()

    async def kill(self) -> None:
        """End the process at once, without a chance to say anything."""
        self._process.kill()
        await self._process.wait()

    def stop(self) -> None:
        """Freeze the process."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a frozen process go on."""
        self._process.send_signal(signal.SIGCONT)

    async def end(self) -> None:
        """Let the process close its store and end; kill it if it is gone or frozen."""
        if self._process.returncode is None:
            self.go_on()
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
