"""Reads JSON Schemas for people: which kinds of values one takes, its fields, and both in a few words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

_KINDS: Final = {"string": "text", "integer": "number", "number": "number", "boolean": "boolean"}
_SHOWN_OPTIONS: Final = 6


def kinds(schema: Schema) -> set[str]:
    """What a value may be at the top: `text` (any), `word` (text of a certain form), `number`, `boolean`, `object`,
    `array`, `null`; `any` where the schema does not say.
    """
    return {kind for part in _alternatives(schema, schema) for kind in _own_kinds(part)}


def alternatives(schema: Schema) -> list[Schema]:
    """The kinds of values that it allows at the top, each by itself."""
    return list(_alternatives(schema, schema))


def properties(schema: Schema) -> Mapping[str, Any]:
    """The fields that an object has; empty where any are allowed."""
    found: dict[str, Any] = {}
    for part in _alternatives(schema, schema):
        if "properties" in part:
            found.update(part["properties"])
        elif "object" in _own_kinds(part):
            return {}
    return found


def summary(schema: Schema) -> str:
    """A schema in a few words: `text`, `integer`, `allow=[text] deny=[text]`, `day=date [note=text]`."""
    return " | ".join(dict.fromkeys(_summary(part, schema) for part in _alternatives(schema, schema)))


def _summary(part: Schema, root: Schema) -> str:
    if "properties" in part:
        required = part.get("required", ())
        shown = [
            f"{name}={_value(inner, root)}" if name in required else f"[{name}={_value(inner, root)}]"
            for name, inner in part["properties"].items()
        ]
        return " ".join(shown) or "an empty object"
    return _value(part, root)


def _value(part: Schema, root: Schema) -> str:
    options = list(_alternatives(part, root))
    if len(options) != 1:
        return "|".join(dict.fromkeys(_value(option, root) for option in options))
    (part,) = options
    if "const" in part:
        return str(part["const"])
    if "enum" in part:
        shown = [str(option) for option in part["enum"]]
        return "|".join(shown[:_SHOWN_OPTIONS]) + ("|…" if len(shown) > _SHOWN_OPTIONS else "")
    kind = part.get("type", "any")
    if kind == "array":
        return f"[{_value(part.get('items', {}), root)}]"
    if kind == "string":
        return str(part.get("format", "text"))
    return "|".join("text" if name == "string" else name for name in ([kind] if isinstance(kind, str) else kind))


def _own_kinds(part: Schema) -> Iterator[str]:
    if "enum" in part or "const" in part:
        yield "word"
        return
    found = part.get("type")
    if found is None:
        yield "any"
        return
    for name in [found] if isinstance(found, str) else found:
        if name == "string" and ("format" in part or "pattern" in part):
            yield "word"
        else:
            yield _KINDS.get(name, name)


def _alternatives(part: Schema, root: Schema) -> Iterator[Schema]:
    """The alternatives that a schema stands for, its references followed."""
    if "$ref" in part:
        yield from _alternatives(_resolve(part["$ref"], root), root)
    elif "anyOf" in part or "oneOf" in part:
        for option in part.get("anyOf") or part["oneOf"]:
            yield from _alternatives(option, root)
    elif len(part.get("allOf", ())) == 1:
        yield from _alternatives(part["allOf"][0], root)
    else:
        yield part


def _resolve(reference: str, root: Schema) -> Schema:
    found: Any = root
    for name in reference.removeprefix("#/").split("/"):
        found = found[name.replace("~1", "/").replace("~0", "~")]
    resolved: Schema = found
    return resolved
