"""Steps for another interpreter, which finds them by their module."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from datetime import timedelta

from stepwell.domain.errors import Fail, NotExecuted


@dataclass(frozen=True)
class Order:
    id: str
    price: float


def total(orders: list[Order], factor: int = 1) -> Order:
    print("this goes to stderr")
    return Order("all", sum(order.price for order in orders) * factor)


def process_id() -> int:
    return os.getpid()


def wait(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def break_down(how: str) -> str:
    if how == "fail":
        raise Fail("sold out", code="shop.sold_out", retryable=True, retry_after=timedelta(0))
    if how == "not executed":
        raise NotExecuted("nothing happened")
    if how == "exit":
        sys.exit(3)
    if how == "die":
        os._exit(4)
    if how == "killed":  # as the system does with one that takes too much memory
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "odd text":
        raise ValueError("\ud800")
    raise FileNotFoundError("no file")


def not_data() -> object:
    return object()


async def coroutine() -> int:
    return 1
