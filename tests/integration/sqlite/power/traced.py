"""The workload on a store, for a process whose system calls are tampered with from outside.

    traced.py SEED MOVES PATH

Writes each promise to PATH.told as a JSON line, one system call for each. The last line says with which codes calls
were refused and which runs changed although nothing was to be stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from stepwell.stores.sqlite import connection
from stepwell.stores.sqlite.store import SqliteStore
from tests.integration.sqlite.power.workload import Acknowledged, Workload


async def work(seed: int, moves: int, path: str) -> None:
    """Run the workload, whatever the store refuses."""
    connection.CHECKPOINT_PAGES = 30  # type: ignore[misc]
    told = os.open(f"{path}.told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(promise: Acknowledged) -> None:
        os.write(told, json.dumps(promise).encode() + b"\n")

    workload = Workload(lambda clock: SqliteStore(path, clock=clock), seed, told=tell)
    await workload.run(moves)
    await workload.close()
    end = {"refused": [refusal.code for refusal in workload.refusals], "half_done": workload.half_done}
    os.write(told, json.dumps(end).encode() + b"\n")


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
