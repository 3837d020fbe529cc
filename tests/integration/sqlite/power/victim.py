"""A program whose children run the workload on a store and kill themselves at a chosen write or sync.

    victim.py SEED MOVES

For each line `POSITION PATH` on stdin: a child is forked, which writes its promises to PATH.told as JSON lines, one
system call for each, and dies with SIGKILL before that write or sync; if POSITION is negative, when half of it is
written. Answers each line with what became of the child: -9, or 0 if it came to its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from stepwell.stores.sqlite import connection
from tests.integration.sqlite.power.failing_disk import FailingDisk
from tests.integration.sqlite.power.workload import Acknowledged, Workload

SEED, MOVES = int(sys.argv[1]), int(sys.argv[2])


async def work(position: int, path: str, told: int) -> None:
    """Run the workload until the disk is asked for that write or sync."""
    connection.CHECKPOINT_PAGES = 30  # type: ignore[misc]
    disk = FailingDisk(abs(position), code=None, share=0.5 if position < 0 else 0)

    def tell(promise: Acknowledged) -> None:
        os.write(told, json.dumps(promise).encode() + b"\n")

    workload = Workload(lambda clock: disk.store(path, clock=clock), SEED, told=tell)
    with disk.at_work():
        await workload.run(MOVES)
        await workload.close()
    os.write(told, json.dumps(disk.count).encode() + b"\n")


def main() -> None:
    for line in sys.stdin:
        position, path = line.split(maxsplit=1)
        child = os.fork()
        if not child:
            told = os.open(f"{path.strip()}.told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            asyncio.run(work(int(position), path.strip(), told))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
