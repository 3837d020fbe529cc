"""Steps for the tests: what they did is written down where no crash reaches it."""

import asyncio
from collections import Counter

executed: Counter[str] = Counter()
"""How often each named effect has happened, in the test that runs."""


def effect(name: str) -> int:
    """An effect in the outside world happens; gives how often it has by now."""
    executed[name] += 1
    return executed[name]


def double(number: int) -> int:
    effect(f"double {number}")
    return 2 * number


async def add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    effect(f"add {a} {b}")
    return a + b


def fail(message: str) -> str:
    effect(f"fail {message}")
    raise ValueError(message)


async def fail_first(name: str, times: int) -> str:
    """Fail a number of times, then succeed."""
    count = effect(name)
    if count <= times:
        raise ValueError(f"{name} failed ({count})")
    return f"{name} done"


async def turns(name: str, count: int) -> str:
    """Take some turns of the event loop, then be done."""
    for _ in range(count):
        await asyncio.sleep(0)
    effect(name)
    return name
