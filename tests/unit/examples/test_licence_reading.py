"""The licence audit's reading: expressions, names, texts, and whole packages as installers lay them out."""

from importlib.metadata import distributions
from pathlib import Path

import pytest

from licence_audit.expressions import Compound, Licence, canonical, parse
from licence_audit.names import from_classifier, from_name
from licence_audit.reading import Reading, read
from licence_audit.texts import recognise

MIT = """
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction ...

The above copyright notice and this permission notice shall be included in all copies or substantial portions of
the Software.
"""
BSD_2 = """
 * Redistribution and use in source and binary forms, with or without
 * modification, are permitted provided that the following conditions are met: ...
"""
BSD_3 = f"{BSD_2} Neither the name of X may be used to endorse or promote products derived from this software."
BSD_4 = f"{BSD_3} All advertising materials mentioning features or use of this software must display ..."
ISC = """Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby
granted, provided that the above copyright notice and this permission notice appear in all copies."""
APACHE = "Apache License\n   Version 2.0, January 2004\n http://www.apache.org/licenses/"
GPL_3 = "GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007"


# ---------------------------------------------------------------- expressions


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("MIT", "MIT"),
        ("mit or apache-2.0", "MIT OR Apache-2.0"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "MPL-2.0 AND (Apache-2.0 OR MIT)"),
        ("GPL-2.0+ WITH Classpath-exception-2.0", "GPL-2.0-or-later WITH Classpath-exception-2.0"),
        ("A OR B AND C", "A OR (B AND C)"),
        ("LicenseRef-Ours", "LicenseRef-Ours"),
    ],
)
def test_an_expression_is_read_and_shown_in_one_spelling(text: str, shown: str) -> None:
    assert str(parse(text)) == shown
    assert parse(shown) == parse(text)


@pytest.mark.parametrize(
    "text", ["", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", "M!T", "(" * 99, "MIT " * 999]
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_a_bare_gnu_version_means_that_version_only() -> None:
    assert canonical("gpl-3.0") == "GPL-3.0-only"
    assert canonical("LGPL-2.1+") == "LGPL-2.1-or-later"


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("MIT License", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("Expat (MIT/X11)", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache 2", "Apache-2.0"),
        ("ASL 2.0", "Apache-2.0"),
        ("BSD 3-Clause License", "BSD-3-Clause"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("Modified BSD License", "BSD-3-Clause"),
        ("GPLv2", "GPL-2.0-only"),
        ("GPLv3+", "GPL-3.0-or-later"),
        ("GNU GPL v3 or later", "GPL-3.0-or-later"),
        ("GPL (>= 2)", "GPL-2.0-or-later"),
        ("LGPL v3", "LGPL-3.0-only"),
        ("LGPLv2.1+", "LGPL-2.1-or-later"),
        ("GNU Affero General Public License v3", "AGPL-3.0-only"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("BSD-3-Clause or Apache License, Version 2.0", "BSD-3-Clause OR Apache-2.0"),
        ("MIT/Apache-2.0", "MIT AND Apache-2.0"),
        ("MIT, BSD-2-Clause and Zlib", "MIT AND BSD-2-Clause AND Zlib"),
        ("Proprietary", "LicenseRef-Proprietary"),
    ],
)
def test_a_name_that_people_write_is_translated(name: str, licence: str) -> None:
    found = from_name(name)
    assert found is not None
    assert str(found).replace("(", "").replace(")", "") == licence


@pytest.mark.parametrize("name", ["BSD", "GPL", "GNU LGPL", "Apache", "Dual License", "see LICENSE.txt", "MIT or ours"])
def test_a_name_that_fits_several_licences_gives_none(name: str) -> None:
    assert from_name(name) is None


@pytest.mark.parametrize(
    ("classifier", "licence"),
    [
        ("License :: OSI Approved :: MIT License", "MIT"),
        ("License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
        ("License :: OSI Approved :: GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
        ("License :: OSI Approved :: GNU Lesser General Public License v2 or later (LGPLv2+)", "LGPL-2.0-or-later"),
        ("License :: OSI Approved :: GNU Affero General Public License v3 or later (AGPLv3+)", "AGPL-3.0-or-later"),
        ("License :: OSI Approved :: ISC License (ISCL)", "ISC"),
        ("License :: OSI Approved :: The Unlicense (Unlicense)", "Unlicense"),
        ("License :: Other/Proprietary License", "LicenseRef-Proprietary"),
        ("License :: OSI Approved :: BSD License", None),
        ("License :: OSI Approved :: Apache Software License", None),
        ("License :: OSI Approved :: GNU Library or Lesser General Public License (LGPL)", None),
    ],
)
def test_a_classifier_gives_a_licence_or_leaves_it_open(classifier: str, licence: str | None) -> None:
    found = from_classifier(classifier)
    assert (None if found is None else str(found)) == licence


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("text", "licences"),
    [
        (MIT, ["MIT"]),
        (MIT.partition("The above")[0], ["MIT-0"]),
        (BSD_2, ["BSD-2-Clause"]),
        (BSD_3, ["BSD-3-Clause"]),
        (BSD_4, ["BSD-4-Clause"]),
        (ISC, ["ISC"]),
        (ISC.partition(", provided")[0], ["0BSD"]),
        (APACHE, ["Apache-2.0"]),
        (GPL_3, ["GPL-3.0-only"]),
        (f"{GPL_3} ... GCC RUNTIME LIBRARY EXCEPTION Version 3.1", ["GPL-3.0-only WITH GCC-exception-3.1"]),
        (f"{MIT}\n\n{APACHE}", ["MIT", "Apache-2.0"]),
        ("All rights reserved. Ask our lawyers.", []),
    ],
)
def test_a_text_is_recognised_by_its_phrases(text: str, licences: list[str]) -> None:
    assert recognise(text) == licences


# ---------------------------------------------------------------- packages


def installed(site: Path, *metadata: str, files: dict[str, str | bytes] | None = None) -> Reading:
    """Lay out a package as an installer does, and read it."""
    folder = site / "thing-1.0.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.4", "Name: thing", "Version: 1.0", *metadata]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    record = ["thing-1.0.dist-info/METADATA,,"]
    for name, content in (files or {}).items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        record.append(f"{name},,")
    (folder / "RECORD").write_text("\n".join(record) + "\n")
    (package,) = distributions(path=[str(site)])
    return read(package)


def licence(reading: Reading) -> str | None:
    return None if reading.expression is None else str(reading.expression)


def test_an_expression_wins_over_the_field_and_the_classifiers(tmp_path: Path) -> None:
    reading = installed(
        tmp_path, "License-Expression: MIT OR Apache-2.0", "License: GPLv3", "Classifier: License :: Public Domain"
    )
    assert (licence(reading), reading.source) == ("MIT OR Apache-2.0", "License-Expression")


def test_an_expression_that_cannot_be_read_is_noted_and_passed_over(tmp_path: Path) -> None:
    reading = installed(tmp_path, "License-Expression: MIT OR", "License: MIT")
    assert (licence(reading), reading.source) == ("MIT", "License")
    assert reading.notes == ["License-Expression 'MIT OR': it ends where a licence should be"]


def test_a_whole_text_in_the_field_is_recognised(tmp_path: Path) -> None:
    lines = "\n        ".join(MIT.strip().splitlines())
    reading = installed(tmp_path, f"License: Copyright (c) Somebody\n        {lines}")
    assert (licence(reading), reading.source) == ("MIT", "text in License")


def test_the_first_line_of_an_unfamiliar_text_may_name_its_licence(tmp_path: Path) -> None:
    reading = installed(tmp_path, "License: BSD 3-Clause License\n        \n        Do as we say.")
    assert (licence(reading), reading.source) == ("BSD-3-Clause", "first line of License")


@pytest.mark.parametrize("nothing", ["UNKNOWN", "", "None", "see LICENSE file"])
def test_a_field_that_says_nothing_is_no_declaration(tmp_path: Path, nothing: str) -> None:
    reading = installed(tmp_path, f"License: {nothing}", "Classifier: License :: OSI Approved :: MIT License")
    assert (licence(reading), reading.source, reading.notes) == ("MIT", "classifier", [])


def test_several_classifiers_are_taken_to_hold_together(tmp_path: Path) -> None:
    reading = installed(
        tmp_path,
        "Classifier: License :: OSI Approved :: MIT License",
        "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
    )
    assert licence(reading) == "MIT AND GPL-3.0-only"
    assert "do not say whether one may choose" in reading.notes[0]


def test_the_licence_file_tells_which_member_of_a_family_it_is(tmp_path: Path) -> None:
    reading = installed(
        tmp_path,
        "License: BSD",
        "Classifier: License :: OSI Approved :: BSD License",
        files={"thing-1.0.dist-info/licenses/LICENSE.txt": BSD_3},
    )
    assert (licence(reading), reading.source) == ("BSD-3-Clause", "LICENSE.txt")


def test_a_licence_file_that_contradicts_the_metadata_is_reported(tmp_path: Path) -> None:
    reading = installed(tmp_path, "License-Expression: MIT", files={"thing-1.0.dist-info/COPYING": GPL_3})
    assert reading.contradicted
    assert reading.notes == ["COPYING reads as GPL-3.0-only"]


def test_or_later_is_no_contradiction_to_the_same_licence_text(tmp_path: Path) -> None:
    reading = installed(tmp_path, "License-Expression: GPL-3.0-or-later", files={"thing-1.0.dist-info/COPYING": GPL_3})
    assert not reading.contradicted


def test_licences_of_bundled_parts_are_not_taken_for_the_package(tmp_path: Path) -> None:
    reading = installed(
        tmp_path, "License-Expression: MIT", files={"thing-1.0.dist-info/licenses/vendored/part/LICENSE": GPL_3}
    )
    assert (licence(reading), reading.contradicted) == ("MIT", False)


def test_a_licence_file_at_the_top_of_the_code_counts_when_there_is_none_beside_the_metadata(tmp_path: Path) -> None:
    reading = installed(tmp_path, files={"thing/LICENSE": MIT, "thing/deep/down/LICENSE": GPL_3})
    assert (licence(reading), reading.source) == ("MIT", "LICENSE")


def test_a_package_that_says_nothing_is_unknown_with_the_reason(tmp_path: Path) -> None:
    assert installed(tmp_path) == Reading(None, "", ["it comes without a licence file"])


def test_odd_bytes_and_lost_files_do_no_harm(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    files: dict[str, str | bytes] = {"thing-1.0.dist-info/LICENSE": b"\xff\xfe\x00 nonsense"}
    reading = installed(site, f"License: \x07 our{'x' * 200} own", files=files)
    assert reading.expression is None
    assert all(note.isprintable() for note in reading.notes)
    (site / "thing-1.0.dist-info" / "LICENSE").unlink()
    (package,) = distributions(path=[str(site)])
    assert read(package).notes[-1] == "it comes without a licence file"


def test_licences_compare_by_what_they_are() -> None:
    assert Compound("OR", (Licence("MIT"), Licence("Zlib"))) == parse("MIT OR Zlib")
