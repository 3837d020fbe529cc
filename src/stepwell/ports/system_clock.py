"""The system's clock: the one place where Stepwell reads the time and learns which boot of the machine this is."""

from __future__ import annotations

import asyncio
import subprocess
import time
from functools import cache
from typing import Final

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_SCALE: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The clock port over the operating system. `elapsed` counts time asleep where the system offers CLOCK_BOOTTIME."""

    def now(self) -> int:
        """Microseconds since the epoch, UTC."""
        return time.time_ns() // 1000

    def elapsed(self) -> float:
        """Seconds on a scale that never jumps and that all processes of one boot share."""
        return time.clock_gettime(_SCALE)

    async def sleep(self, seconds: float) -> None:
        """Wait; other tasks go on."""
        await asyncio.sleep(seconds)


@cache
def boot_id() -> str:
    """What tells this boot of the machine from any other; empty where the system does not say."""
    try:
        with open(_BOOT_ID) as file:
            return file.read().strip()
    except OSError:
        return _boot_session()


def _boot_session() -> str:
    """macOS names its boots in a kernel variable."""
    try:
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()
