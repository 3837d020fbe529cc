"""What a codec is: the way of one annotation between typed objects and stored text.

Built by `stepwell.codec.annotations`, held by whoever runs a function with that annotation. It never touches a store.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from stepwell.domain.errors import InvalidValue

T = TypeVar("T")

# What stands where no type is given: any value that is plain JSON.
UNTYPED = (inspect.Parameter.empty, Any, object)


class Codec(ABC, Generic[T]):
    """Turns values of one annotation into JSON text and back.

    `what` begins the path in every error: `what="fetch"` gives `fetch.items[3].price`.
    """

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    @abstractmethod
    def remember(self, value: object, what: str) -> tuple[str, T]:
        """The text of `value`, and what that text decodes to: what the caller goes on with, now and on every replay.

        Raises `InvalidValue` if the two are not equal in value and shape (`value.round_trip`), or if `value` is not in
        the value domain (`value.nan` and the others of `stepwell.domain.values`).
        """

    @abstractmethod
    def decode(self, text: str, what: str) -> T:
        """The value that `text`, written by `remember` or `encode`, stands for.

        Raises `InvalidValue`: `value.undecodable` if it does not fit the annotation, `value.json` if it is damaged.
        """

    @abstractmethod
    def accept(self, plain: object, what: str) -> T:
        """The value that parsed JSON from outside stands for.

        Raises `InvalidInput` with one line for each field that is wrong, or `InvalidValue`.
        """

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of what `accept` takes. Raises `InvalidDefinition` if there is none."""

    def encode(self, value: object, what: str) -> str:
        """The text of `value`; raises what `remember` raises."""
        return self.remember(value, what)[0]


def name_of(annotation: Any) -> str:
    """An annotation as its author wrote it: `list[int]`, `Ticket`, `str | None`; `plain JSON` where there is none."""
    if annotation in UNTYPED:
        return "plain JSON"
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type):
        return annotation.__qualname__
    return repr(annotation).replace("typing.", "")


def undecodable(reason: str, what: str, path: str | None = None) -> InvalidValue:
    """The error for stored text that does not fit its annotation."""
    return InvalidValue(
        f"{what} was stored in another shape: {reason}",
        path=path or what,
        code="value.undecodable",
        hint="the annotation has changed since then; change it back, or let it take the old shape too",
    )
