"""The Markdown pages of the checkout hang together: links lead somewhere, decision records have their shape."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.checkout import ROOT, markdown_files

DECISIONS = ROOT / "docs" / "decisions"

CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^ *\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
ANCHOR = re.compile(r"<a (?:id|name)=\"([^\"]+)\"")


def links(markdown: str) -> list[str]:
    """The targets of the links of a page that lead into the checkout."""
    targets = [inline or reference for inline, reference in LINK.findall(CODE.sub("", markdown))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page, named from its headings as code hosts name them."""
    markdown = page.read_text(encoding="utf-8")
    found = set(ANCHOR.findall(markdown))
    seen: dict[str, int] = {}
    for heading in HEADING.findall(re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.MULTILINE | re.DOTALL)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        times = seen.get(slug, 0)
        seen[slug] = times + 1
        found.add(f"{slug}-{times}" if times else slug)
    return frozenset(found)


def is_dead(page: Path, target: str) -> bool:
    """Whether a link of a page leads nowhere: no such file, or no such heading in it."""
    path, _, anchor = target.partition("#")
    destination = (page.parent / path).resolve() if path else page
    if not destination.exists() or not destination.is_relative_to(ROOT):
        return True
    return bool(anchor) and destination.suffix == ".md" and anchor not in anchors(destination)


@pytest.mark.parametrize("page", markdown_files(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_into_the_checkout_leads_somewhere(page: Path) -> None:
    dead = [target for target in links(page.read_text(encoding="utf-8")) if is_dead(page, target)]
    assert dead == []


@pytest.mark.parametrize("target", ["gone.md", "#no-such-heading", "CHANGELOG.md#no-such-heading", "../elsewhere.md"])
def test_a_dead_link_is_recognised(target: str) -> None:
    assert links(f"see [this]({target}) and `[that](code.md)`") == [target]
    assert is_dead(ROOT / "CONTRIBUTING.md", target)


def test_decision_records_are_numbered_once() -> None:
    names = [path.name for path in sorted(DECISIONS.iterdir())]
    assert [name for name in names if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)] == []
    numbers = [name[:4] for name in names]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("record", sorted(DECISIONS.glob("[0-9]*.md")), ids=lambda record: record.stem)
def test_a_decision_record_gives_context_choice_and_consequence(record: Path) -> None:
    headings = HEADING.findall(record.read_text(encoding="utf-8"))
    assert headings[1:] == ["Context", "Choice", "Consequence"]
