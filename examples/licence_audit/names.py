"""From what people write into the field `License`, and from classifiers, to SPDX expressions.

Only what names one licence is translated. "BSD" alone names a family of different licences: it gives nothing here, and
the licence file has to tell.
"""

import re
from typing import Final, Literal

from licence_audit.expressions import KNOWN, MAX_LENGTH, Compound, Expression, Licence, all_of, canonical, parse

# What people write, besides the identifier itself. Case, punctuation and words like "License" do not matter.
_WRITTEN: Final = {
    "Apache-1.1": "Apache 1.1",
    "Apache-2.0": "Apache 2 | Apache 2.0 | Apache2 | Apache2.0 | ASL 2 | ASL 2.0 | Apache 2.0 (Apache-2.0)",
    "Artistic-2.0": "Artistic 2.0",
    "BSD-2-Clause": "BSD 2 | BSD 2 Clause | 2 Clause BSD | Simplified BSD | BSD 2-Clause Simplified | FreeBSD",
    "BSD-3-Clause": "BSD 3 | BSD 3 Clause | 3 Clause BSD | New BSD | Modified BSD | Revised BSD | BSD 3-Clause Revised"
    " | BSD 3-Clause New or Revised",
    "BSD-4-Clause": "BSD 4 Clause",
    "BSL-1.0": "Boost 1.0 | Boost Software License 1.0 (BSL-1.0) | BSL 1.0",
    "CC0-1.0": "CC0 | CC0 1.0 | CC0 1.0 Universal | CC0 1.0 Universal (CC0 1.0) Public Domain Dedication",
    "CC-BY-4.0": "CC BY 4.0",
    "EPL-1.0": "EPL 1.0 | Eclipse Public 1.0 | Eclipse Public 1.0 (EPL-1.0)",
    "EPL-2.0": "EPL 2.0 | Eclipse Public 2.0 | Eclipse Public 2.0 (EPL-2.0)",
    "EUPL-1.2": "EUPL 1.2 | European Union Public 1.2 (EUPL 1.2)",
    "HPND": "HPND | Historical Permission Notice and Disclaimer | Historical Permission Notice and Disclaimer (HPND)",
    "ISC": "ISC | ISCL | ISC License (ISCL)",
    "LicenseRef-Proprietary": "Proprietary | Other/Proprietary | NVIDIA Proprietary | Commercial | All rights reserved",
    "LicenseRef-Public-Domain": "Public Domain",
    "MIT": "MIT | Expat | MIT (Expat) | Expat (MIT) | Expat (MIT/X11) | MIT/X11 | MIT License (MIT)",
    "MIT-0": "MIT 0 | MIT No Attribution | MIT No Attribution (MIT-0)",
    "MIT-CMU": "MIT CMU | CMU License (MIT-CMU)",
    "MPL-1.1": "MPL 1.1 | Mozilla Public 1.1 | Mozilla Public License 1.1 (MPL 1.1)",
    "MPL-2.0": "MPL 2 | MPL2 | MPL 2.0 | MPL2.0 | Mozilla Public 2.0 | Mozilla Public License 2.0 (MPL 2.0)",
    "NCSA": "University of Illinois/NCSA Open Source",
    "OFL-1.1": "OFL 1.1 | SIL Open Font License 1.1 (OFL-1.1)",
    "PSF-2.0": "PSF 2 | PSF 2.0",
    "Unlicense": "The Unlicense (Unlicense)",
    "UPL-1.0": "Universal Permissive 1.0 | Universal Permissive License (UPL)",
    "WTFPL": "WTFPL",
    "Zlib": "zlib/libpng | zlib/libpng License",
    "ZPL-2.1": "ZPL 2.1 | Zope Public 2.1",
}

_SAYS_NOTHING: Final = frozenset({"", "unknown", "none", "n/a", "license", "see license", "see license file"})
_FILLERS: Final = re.compile(r"\b(?:the|licen[cs]e[ds]?|under|terms|of|version|software|osi|approved)\b")
_LATER: Final = re.compile(r"[,( ]*\bor (?:\(at your option\) )?(?:any )?(?:later|newer|above)\b(?: version)?\)?", re.I)
_AT_LEAST: Final = re.compile(r">= *([\d.]+)")
_BESIDE: Final = re.compile(r"\s*[,;/&]\s*")
_GNU: Final = re.compile(
    r"(?:gnu )?(?:(?P<affero>agpl|affero general public)"
    r"|(?P<lesser>lgpl|(?:library |lesser |library or lesser )general public|lesser gpl)|gpl|general public)"
    r" ?(?P<number>[1-3](?:\.[01])?) ?(?P<later>\+)?(?: only)?(?: [al]?gpl ?[\d.]+ ?\+?)?"
)


def says_nothing(field: str) -> bool:
    """Whether a field `License` is empty in other words."""
    return field.strip().rstrip(".").lower() in _SAYS_NOTHING


def from_name(name: str) -> Expression | None:
    """The licence that a short text names: an SPDX expression, a usual name, or several of these; None when unclear.

    Where names are only listed ("MIT/Apache-2.0") nobody knows whether one may choose: they are taken to hold together.
    """
    if len(name) > MAX_LENGTH:
        return None
    text = _AT_LEAST.sub(r"\1+", _LATER.sub("+", name))
    whole = _single(text) or _spdx(text)
    if whole is not None or "(" in text:
        return whole
    return _joined(text, "or", "OR") or _joined(text, "and", "AND") or _listed(text)


def from_classifier(classifier: str) -> Expression | None:
    """The licence that a classifier `License :: …` names, or None when it names a family or nothing."""
    return _single(_LATER.sub("+", classifier.rpartition(" :: ")[2]))


def _single(name: str) -> Expression | None:
    identifier = canonical(name.strip())
    if identifier in _IDENTIFIERS:
        return Licence(identifier)
    key = _key(name)
    if key in _BY_KEY:
        return Licence(_BY_KEY[key])
    gnu = _GNU.fullmatch(key)
    return None if gnu is None else Licence(_gnu_identifier(gnu))


def _spdx(name: str) -> Expression | None:
    """A text that is an SPDX expression of licences we know."""
    try:
        expression = parse(name)
    except ValueError:
        return None
    return expression if _is_known(expression) else None


def _is_known(expression: Expression) -> bool:
    if isinstance(expression, Compound):
        return all(_is_known(part) for part in expression.parts)
    return expression.base in _IDENTIFIERS or expression.base.startswith("LicenseRef-")


def _joined(text: str, word: str, operator: Literal["AND", "OR"]) -> Expression | None:
    words = re.split(rf"\s+{word}\s+", text, flags=re.IGNORECASE)
    parts = [from_name(part) for part in words] if len(words) > 1 else []
    known = tuple(part for part in parts if part is not None)
    return Compound(operator, known) if known and len(known) == len(parts) else None


def _listed(text: str) -> Expression | None:
    parts = [_single(part) for part in _BESIDE.split(text)]
    known = [part for part in parts if part is not None]
    return all_of(known) if known and len(known) == len(parts) else None


def _gnu_identifier(found: re.Match[str]) -> str:
    prefix = "AGPL" if found["affero"] else "LGPL" if found["lesser"] else "GPL"
    number = found["number"] if "." in found["number"] else f"{found['number']}.0"
    return f"{prefix}-{number}-{'or-later' if found['later'] else 'only'}"


def _key(name: str) -> str:
    """A name without case, punctuation, and the words that every licence's name may have."""
    text = re.sub(r"(?:\b|(?<=pl))v\.?\s*(?=\d)", " ", name.lower())
    text = re.sub(r"[^a-z0-9.+/]+", " ", text)
    return " ".join(_FILLERS.sub(" ", text).split()).strip(" .")


_IDENTIFIERS: Final = frozenset(KNOWN)
_BY_KEY: Final = {_key(name): identifier for identifier, names in _WRITTEN.items() for name in names.split(" | ")}
