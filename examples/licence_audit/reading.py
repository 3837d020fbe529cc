"""Reads what an installed package says about its licence: metadata first, then the licence files that came with it.

It reports facts and doubts. What is allowed, the policy decides.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackagePath
from typing import Final

from licence_audit.expressions import Expression, Licence, all_of, family, licences, parse
from licence_audit.names import from_classifier, from_name, says_nothing
from licence_audit.texts import recognise

_LICENCE_FILE: Final = re.compile(r"(?:licen[cs]e|copying|copyright)", re.IGNORECASE)
_NOT_TEXT: Final = (".py", ".pyc", ".pyi", ".so", ".json", ".xml", ".toml")
_METADATA_FOLDER: Final = (".dist-info", ".egg-info")
_LARGEST_FILE: Final = 1024 * 1024
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Reading:
    """What a package says: its licence (None if nobody can tell), where that stands, and what a person should know."""

    expression: Expression | None
    source: str
    notes: list[str]
    contradicted: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """An expression and where it stands."""

    expression: Expression
    source: str


def read(package: Distribution) -> Reading:
    """Read a package. Never raises for what the package says, however odd."""
    notes: list[str] = []
    declared = next(_declarations(package, notes), None)
    files = {name: recognise(text) for name, text in _licence_files(package)}
    if declared is None:
        return _from_files(files, notes)
    texts = {family(Licence(identifier)) for identifiers in files.values() for identifier in identifiers}
    names = {family(licence) for licence in licences(declared.expression)}
    if texts and not texts & names:
        told = ", ".join(f"{name} reads as {_joined(ids)}" for name, ids in files.items() if ids)
        return Reading(declared.expression, declared.source, [*notes, told], contradicted=True)
    return Reading(declared.expression, declared.source, notes)


# ---------------------------------------------------------------- metadata


def _declarations(package: Distribution, notes: list[str]) -> Iterator[Found]:
    """What the metadata declares, the most exact first. What cannot be understood goes into the notes."""
    metadata = package.metadata.json
    if expression := _one(metadata.get("license_expression")):
        try:
            yield Found(parse(expression), "License-Expression")
        except ValueError as error:
            notes.append(f"License-Expression {quote(expression)}: {error}")
    if (field := _one(metadata.get("license"))) and not says_nothing(field):
        found = _from_field(field)
        if found is not None:
            yield found
        else:
            notes.append(f"the field License says {quote(field)}")
    yield from _from_classifiers(_all(metadata.get("classifier")), notes)


def _from_field(field: str) -> Found | None:
    """The field holds a name, or a whole licence text, of which the first line may be a name."""
    first, *more = field.strip().splitlines()
    named = from_name(" ".join(field.split())) if not more else None
    if named is not None:
        return Found(named, "License")
    if identifiers := recognise(field):
        return Found(_together(identifiers), "text in License")
    named = from_name(first) if more else None
    return Found(named, "first line of License") if named is not None else None


def _from_classifiers(classifiers: Iterable[str], notes: list[str]) -> Iterator[Found]:
    about = [name for name in classifiers if name.startswith("License ::") and name != "License :: OSI Approved"]
    parts = [from_classifier(name) for name in about]
    notes += [
        f"the classifier {quote(name.rpartition(' :: ')[2])} does not name one licence"
        for name, part in zip(about, parts, strict=True)
        if part is None
    ]
    known = [part for part in parts if part is not None]
    if known and len(known) == len(parts):
        if len(known) > 1:
            notes.append("several classifiers do not say whether one may choose; all are taken to hold")
        yield Found(all_of(known), "classifiers" if len(known) > 1 else "classifier")


# ---------------------------------------------------------------- licence files


def _from_files(files: dict[str, list[str]], notes: list[str]) -> Reading:
    identifiers = [identifier for found in files.values() for identifier in found]
    if identifiers:
        return Reading(_together(identifiers), ", ".join(name for name, found in files.items() if found), notes)
    if files:
        return Reading(None, "", [*notes, f"{', '.join(files)}: not a text that is known here"])
    return Reading(None, "", [*notes, "it comes without a licence file"])


def _licence_files(package: Distribution) -> Iterator[tuple[str, str]]:
    """Name and text of the package's own licence files: those beside its metadata, else those on top of its code."""
    named = [path for path in package.files or () if _is_licence_file(path)]
    beside = [path for path in named if _depth_beside_metadata(path) == 0]
    at_top = [path for path in named if len(path.parts) <= 2 and _depth_beside_metadata(path) is None]
    for path in beside or at_top:
        try:
            content = package.locate_file(path).read_bytes()  # type: ignore[attr-defined]
        except OSError:
            continue
        yield path.name, content[:_LARGEST_FILE].decode("utf-8", "replace")


def _is_licence_file(path: PackagePath) -> bool:
    return bool(_LICENCE_FILE.search(path.name)) and path.suffix.lower() not in _NOT_TEXT


def _depth_beside_metadata(path: PackagePath) -> int | None:
    """How many folders lie between the metadata and the file; None when it lies elsewhere.

    Build tools put the package's own files directly there or into `licenses/`, those of bundled parts below that.
    """
    folder, *rest = path.parts
    if not folder.endswith(_METADATA_FOLDER):
        return None
    return len([part for part in rest[:-1] if part not in ("licenses", "license_files")])


# ---------------------------------------------------------------- words


def quote(text: str) -> str:
    """Foreign text on one line, without what a terminal or a store would stumble over, cut where it is long."""
    flat = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return repr(flat if len(flat) <= _SHOWN else flat[: _SHOWN - 1] + "…")


def _together(identifiers: list[str]) -> Expression:
    return all_of([Licence(identifier) for identifier in identifiers])


def _joined(identifiers: list[str]) -> str:
    return " and ".join(identifiers)


def _one(value: str | list[str] | None) -> str:
    return value if isinstance(value, str) else "".join(value[:1]) if value else ""


def _all(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []
