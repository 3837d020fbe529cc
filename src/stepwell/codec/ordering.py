"""One order for the members of sets in the text of an input, whatever the hash seed of the process that wrote it.

Called for inputs alone: the digest of their text tells whether an idempotency key came with the same input again.
"""

from __future__ import annotations

from collections import deque

from stepwell.codec.structure import named_parts
from stepwell.domain.values import Json, canonical


def with_sorted_sets(plain: Json, value: object) -> Json:
    """`plain`, the JSON that was written of `value`, with every array that stands for a set sorted."""
    if (
        isinstance(plain, list)
        and isinstance(value, list | tuple | deque | set | frozenset)
        and len(plain) == len(value)
    ):
        members = [with_sorted_sets(part, member) for part, member in zip(plain, value, strict=True)]
        return sorted(members, key=canonical) if isinstance(value, set | frozenset) else members
    if isinstance(plain, dict):
        parts = _by_key(plain, value)
        return {key: with_sorted_sets(part, parts.get(key)) for key, part in plain.items()}
    return plain


def _by_key(plain: dict[str, Json], value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        return named_parts(value) or {}
    if all(key in plain for key in value):
        return value
    return dict(zip(plain, value.values(), strict=False))  # keys that JSON writes as text are in their order
