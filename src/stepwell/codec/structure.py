"""What a typed object is made of: the named parts of dataclasses, pydantic models and named tuples.

Read by the comparison of a value with what came back, by the search for faults, and by fingerprints, so that all three
mean the same by "a field". Never imports pydantic: a model can only exist where pydantic is imported already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any


def named_parts(value: Any) -> dict[str, object] | None:
    """The fields of a dataclass, a model (extra ones too) or a named tuple, in their order; None for anything else.

    A field that was never set is left out. So is one that its dataclass neither takes nor compares: a cache, not data.
    """
    names = field_names(type(value))
    if names is None:
        return None
    try:
        parts = {name: getattr(value, name) for name in names}
    except AttributeError:
        parts = {name: getattr(value, name) for name in names if hasattr(value, name)}
    extra = getattr(value, "__pydantic_extra__", None)
    return parts | extra if extra else parts


def all_parts(value: Any) -> dict[str, object]:
    """The named parts, and a model's private attributes, which its JSON never holds."""
    parts = named_parts(value) or {}
    private = getattr(value, "__pydantic_private__", None)
    return parts | private if private else parts


def kind(value: Any) -> type[Any]:
    """The type of `value`, and of a parametrised generic model the model itself: `Page[int](…)` is a `Page`."""
    made = type(value)
    metadata = getattr(made, "__pydantic_generic_metadata__", None)
    return (metadata and metadata["origin"]) or made


def _field_names(made: type[Any]) -> tuple[str, ...] | None:
    if issubclass(made, Enum):
        return None
    if is_dataclass(made):
        return tuple(field.name for field in fields(made) if field.init or field.compare)
    if issubclass(made, tuple):
        return getattr(made, "_fields", None)
    models = sys.modules.get("pydantic.main")
    if models is not None and issubclass(made, models.BaseModel):
        return tuple(made.model_fields)
    return None


# The declared fields of a class, or None if it is neither a dataclass, nor a model, nor a named tuple.
field_names: Callable[[Any], tuple[str, ...] | None] = lru_cache(maxsize=1024)(_field_names)
