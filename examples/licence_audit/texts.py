"""Recognises licences by the phrases that only their texts contain.

A text names the licence that it holds, never "or any later version": whether that applies is said elsewhere.
"""

import re
from typing import Final, NamedTuple


class Mark(NamedTuple):
    """A licence, the phrases that its text must contain, and those that would make it another one's."""

    id: str
    phrases: tuple[str, ...]
    without: tuple[str, ...] = ()


_MIT_GRANT: Final = "permission is hereby granted free of charge to any person obtaining a copy"
_MIT_CONDITION: Final = "permission notice shall be included in all copies"
_ISC_GRANT: Final = "permission to use copy modify and or distribute this software for any purpose with or without fee"
_BSD_GRANT: Final = "redistribution and use in source and binary forms with or without modification are permitted"
_BSD_THIRD: Final = "may be used to endorse or promote products derived from this software"
_BSD_FOURTH: Final = "all advertising materials mentioning features or use"
_APACHE_TEXT: Final = "apache license version 2 0 january 2004"
_GPL_3: Final = "gnu general public license version 3 29 june 2007"
_GCC_EXCEPTION: Final = "gcc runtime library exception version 3 1"

# Phrases as `_plain` leaves text: lower case, words only.
MARKS: Final = (
    Mark("MIT", (_MIT_GRANT, _MIT_CONDITION)),
    Mark("MIT-0", (_MIT_GRANT,), (_MIT_CONDITION,)),
    Mark("ISC", (_ISC_GRANT, "this permission notice appear in all copies")),
    Mark("0BSD", (_ISC_GRANT,), ("this permission notice appear in all copies",)),
    Mark("BSD-4-Clause", (_BSD_GRANT, _BSD_FOURTH)),
    Mark("BSD-3-Clause", (_BSD_GRANT, _BSD_THIRD), (_BSD_FOURTH,)),
    Mark("BSD-2-Clause", (_BSD_GRANT,), (_BSD_THIRD, _BSD_FOURTH)),
    Mark("Apache-2.0", (_APACHE_TEXT,)),
    Mark("Apache-2.0", ("licensed under the apache license version 2 0",), (_APACHE_TEXT,)),
    Mark("MPL-2.0", ("mozilla public license version 2 0", "incompatible with secondary licenses")),
    Mark("MPL-2.0", ("terms of the mozilla public license v 2 0",), ("mozilla public license version 2 0",)),
    Mark("AGPL-3.0-only", ("gnu affero general public license version 3 19 november 2007",)),
    Mark("LGPL-2.0-only", ("gnu library general public license version 2 june 1991",)),
    Mark("LGPL-2.1-only", ("gnu lesser general public license version 2 1 february 1999",)),
    Mark("LGPL-3.0-only", ("gnu lesser general public license version 3 29 june 2007",)),
    Mark("GPL-2.0-only", ("gnu general public license version 2 june 1991",)),
    Mark("GPL-3.0-only", (_GPL_3,), (_GCC_EXCEPTION,)),
    Mark("GPL-3.0-only WITH GCC-exception-3.1", (_GPL_3, _GCC_EXCEPTION)),
    Mark("PSF-2.0", ("python software foundation license version 2", "psf is making python available")),
    Mark("PSF-2.0", ("psf license agreement for python",), ("python software foundation license version 2",)),
    Mark("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    Mark("CC0-1.0", ("cc0 1 0 universal",)),
    Mark("Zlib", ("altered source versions must be plainly marked as such", "origin of this software must not be")),
    Mark("BSL-1.0", ("boost software license version 1 0",)),
    Mark("ZPL-2.1", ("zope public license zpl version 2 1",)),
    Mark("EPL-1.0", ("eclipse public license v 1 0",)),
    Mark("EPL-2.0", ("eclipse public license v 2 0",)),
    Mark("EUPL-1.2", ("european union public licence v 1 2",)),
    Mark("OFL-1.1", ("sil open font license version 1 1",)),
    Mark("Artistic-2.0", ("artistic license 2 0",)),
    Mark("HPND", ("this software and its documentation for any purpose and without fee is hereby granted",)),
    Mark("WTFPL", ("do what the fuck you want to public license",)),
    Mark("BUSL-1.1", ("business source license 1 1",)),
    Mark("SSPL-1.0", ("server side public license version 1",)),
)


def recognise(text: str) -> list[str]:
    """The SPDX identifiers of the licences whose texts stand in a text, each once; empty when none is recognised."""
    plain = _plain(text)
    found = (
        mark.id
        for mark in MARKS
        if all(phrase in plain for phrase in mark.phrases) and not any(phrase in plain for phrase in mark.without)
    )
    return list(dict.fromkeys(found))


def _plain(text: str) -> str:
    """Words in lower case with single spaces: line breaks, indentation, quotes and comment signs do not matter."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
