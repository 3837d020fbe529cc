"""A program that opens the store at the path in its argument, and closes it.

opener.py PATH
"""

from __future__ import annotations

import asyncio
import sys

from stepwell.stores.sqlite.store import SqliteStore


async def main() -> None:
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
