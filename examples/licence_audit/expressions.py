"""SPDX licence expressions: read from text, and asked which licences they name.

`MIT`, `MIT OR Apache-2.0`, `MPL-2.0 AND (Apache-2.0 OR MIT)`, `GPL-2.0-only WITH Classpath-exception-2.0`. Used by the
reading of metadata and by the policy. Nothing here knows packages.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

MAX_LENGTH: Final = 1000

# The identifiers that packages use, as the SPDX list spells them. Others pass in a License-Expression as they are.
# fmt: off
KNOWN: Final = (
    "0BSD", "AFL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-1.1", "Apache-2.0", "Artistic-2.0", "Beerware",
    "BlueOak-1.0.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-2-Clause-Patent", "BSD-3-Clause", "BSD-3-Clause-Clear",
    "BSD-4-Clause", "BSL-1.0", "BUSL-1.1", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0",
    "CC-BY-SA-4.0", "CC0-1.0", "CDDL-1.0", "CDDL-1.1", "CECILL-2.1", "CECILL-B", "CECILL-C", "CNRI-Python",
    "CPL-1.0", "curl", "ECL-2.0", "EPL-1.0", "EPL-2.0", "EUPL-1.1", "EUPL-1.2", "GFDL-1.3-or-later",
    "GPL-1.0-or-later", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "HPND", "ICU",
    "IJG", "ISC", "LGPL-2.0-only", "LGPL-2.0-or-later", "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only",
    "LGPL-3.0-or-later", "MIT", "MIT-0", "MIT-CMU", "MPL-1.1", "MPL-2.0", "MulanPSL-2.0", "NCSA", "OFL-1.1",
    "OpenSSL", "OSL-3.0", "PostgreSQL", "PSF-2.0", "Python-2.0", "QPL-1.0", "SSPL-1.0", "Unicode-3.0", "Unlicense",
    "UPL-1.0", "Vim", "W3C", "WTFPL", "X11", "ZPL-2.0", "ZPL-2.1", "Zlib", "any-OSI",
)
# fmt: on

_BY_LOWER: Final = {name.lower(): name for name in KNOWN}
_VERSIONED_FAMILIES: Final = re.compile(r"(?:A|L)?GPL-\d\.\d|GFDL-\d\.\d")
_TOKEN: Final = re.compile(r"\s*([()]|[A-Za-z0-9][A-Za-z0-9.+:-]*)")
_MAX_DEPTH: Final = 20


@dataclass(frozen=True, slots=True)
class Licence:
    """One licence by its SPDX identifier, with `WITH` and an exception where there is one."""

    id: str

    @property
    def base(self) -> str:
        """The identifier without its exception."""
        return self.id.partition(" WITH ")[0]

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True, slots=True)
class Compound:
    """Licences that hold together (`AND`), or from which one may be chosen (`OR`)."""

    operator: Literal["AND", "OR"]
    parts: tuple["Expression", ...]

    def __str__(self) -> str:
        shown = (f"({part})" if isinstance(part, Compound) else str(part) for part in self.parts)
        return f" {self.operator} ".join(shown)


Expression: TypeAlias = Licence | Compound


def parse(text: str) -> Expression:
    """Read an expression. Raises `ValueError` saying what is wrong with it."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"an expression of {len(text)} characters")
    tokens = _Tokens(text)
    expression = _either(tokens, 0)
    if tokens.next is not None:
        raise ValueError(f"{tokens.next!r} is one word too many")
    return expression


def licences(expression: Expression) -> Iterator[Licence]:
    """Every licence that an expression names, in order."""
    if isinstance(expression, Licence):
        yield expression
    else:
        for part in expression.parts:
            yield from licences(part)


def all_of(parts: list[Expression]) -> Expression:
    """The expression that all parts hold together; parts that occur twice are named once."""
    distinct = tuple(dict.fromkeys(parts))
    return distinct[0] if len(distinct) == 1 else Compound("AND", distinct)


def canonical(identifier: str) -> str:
    """An identifier in the spelling of the SPDX list: `mit` is MIT, `GPL-2.0+` is GPL-2.0-or-later, `GPL-2.0` -only."""
    name = _BY_LOWER.get(identifier.lower(), identifier)
    bare = name.removesuffix("+")
    if _VERSIONED_FAMILIES.fullmatch(bare.upper()):
        return f"{bare.upper()}-{'or-later' if name.endswith('+') else 'only'}"
    return name


def family(licence: Licence) -> str:
    """The licence without exception and without "or later": a licence's text is the same with and without them."""
    return licence.base.removesuffix("-only").removesuffix("-or-later")


class _Tokens:
    """The words of an expression, one at a time; `next` is None at the end."""

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._at = 0
        self.next: str | None = None
        self.advance()

    def advance(self) -> str | None:
        """Go on to the next word and give the one before."""
        before, self.next = self.next, None
        if self._at < len(self._text):
            found = _TOKEN.match(self._text, self._at)
            if found is None:
                raise ValueError(f"{self._text[self._at]!r} has no place in an expression")
            self.next, self._at = found[1], found.end()
        return before

    def skip(self, operator: str) -> bool:
        """Go on if the next word is this operator, in any case."""
        if self.next is None or self.next.upper() != operator:
            return False
        self.advance()
        return True


def _either(tokens: _Tokens, depth: int) -> Expression:
    if depth > _MAX_DEPTH:
        raise ValueError("parentheses without end")
    parts = [_both(tokens, depth)]
    while tokens.skip("OR"):
        parts.append(_both(tokens, depth))
    return parts[0] if len(parts) == 1 else Compound("OR", tuple(parts))


def _both(tokens: _Tokens, depth: int) -> Expression:
    parts = [_one(tokens, depth)]
    while tokens.skip("AND"):
        parts.append(_one(tokens, depth))
    return parts[0] if len(parts) == 1 else Compound("AND", tuple(parts))


def _one(tokens: _Tokens, depth: int) -> Expression:
    word = tokens.advance()
    if word == "(":
        inner = _either(tokens, depth + 1)
        if tokens.advance() != ")":
            raise ValueError("a parenthesis is not closed")
        return inner
    if word is None or word == ")" or word.upper() in ("AND", "OR", "WITH"):
        raise ValueError(f"a licence is missing before {word!r}" if word else "it ends where a licence should be")
    if tokens.skip("WITH"):
        exception = tokens.advance()
        if exception is None or exception in ("(", ")"):
            raise ValueError("an exception is missing after WITH")
        return Licence(f"{canonical(word)} WITH {exception}")
    return Licence(canonical(word))
