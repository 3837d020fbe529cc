"""Fingerprints: short digests by which a replay notices that a step is called with other arguments than before.

Called for every step. Arguments are not stored, only compared: an integer of any size is welcome here, NaN is not.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from stepwell.codec.tags import tagged
from stepwell.domain.errors import InvalidValue
from stepwell.domain.values import Trail


def fingerprint(args: tuple[object, ...], what: str) -> str:
    """32 hexadecimal digits of a step's arguments: equal for equal data, in every process.

    Data are scalars, lists, dicts, tuples, sets (in any order), bytes, enums, dates, times, paths, UUIDs, decimals, and
    dataclasses, pydantic models and named tuples of them. Types count: 1, "1", True and 1.0 differ, and so do (1,) and
    [1]. Raises `InvalidValue` for anything else (`step.argument`) and for NaN (`value.nan`); `what` names the step in
    it.
    """
    try:
        text = " ".join([tagged(arg, _trail(number)) for number, arg in enumerate(args, 1)])
    except InvalidValue as error:
        raise InvalidValue(f"{what}: {error.message}", path=error.path, code=error.code, hint=error.hint) from None
    return blake2b(text.encode("ascii"), digest_size=16).hexdigest()


@lru_cache(maxsize=64)
def _trail(number: int) -> Trail:
    return None, f"argument {number}"
