"""Where the truth lives. One folder a technology; `make_store` picks by URL. Stores do not know each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.domain.errors import InvalidDefinition

if TYPE_CHECKING:
    from stepwell.ports.clock import Clock
    from stepwell.ports.store import Store


def make_store(url: str, *, clock: Clock | None = None) -> Store:
    """The store that a URL names, not yet open: `sqlite:///relative.db`, `sqlite:////absolute.db` or `memory://`.

    Raises `InvalidDefinition` (`store.url`) for any other URL. Drivers are imported here, when first needed.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "memory":
        from stepwell.stores.memory.store import MemoryStore

        return MemoryStore(clock=clock)
    if separator and scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from stepwell.stores.sqlite.store import SqliteStore

        return SqliteStore(rest[1:], clock=clock)
    raise InvalidDefinition(
        f"{url!r} is not a store that is known here",
        code="store.url",
        hint="write sqlite:///path/to/file.db (four slashes for an absolute path) or memory://",
    )
