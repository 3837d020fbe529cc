"""The stores under test, and where each keeps its data."""

from collections.abc import Callable
from pathlib import Path

from stepwell.ports.clock import Clock
from stepwell.ports.store import Store
from stepwell.stores import make_store

URLS: dict[str, Callable[[Path], str]] = {
    "memory": lambda _: "memory://",
    "sqlite": lambda folder: f"sqlite:///{folder / 'data.db'}",
}
SHARED = ["sqlite"]


def maker(name: str, folder: Path) -> Callable[[Clock], Store]:
    """A way to make stores of that kind over one folder."""
    url = URLS[name](folder)
    return lambda clock: make_store(url, clock=clock)
