"""The findings as a table for a terminal, as Markdown and as CSV. Pure text from findings."""

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from licence_audit.policy import Verdict

_WIDTH: Final = 79
_COLUMNS: Final = ("package", "version", "licence", "verdict", "rule", "source", "notes")


@dataclass(frozen=True, slots=True)
class Finding:
    """What the audit found about one package: its licence, the verdict, and the rule that decided."""

    package: str
    version: str
    licence: str
    verdict: Verdict
    rule: str
    source: str
    notes: list[str]


def summary(findings: Sequence[Finding]) -> str:
    """`41 packages: 39 allow, 1 deny, 1 unknown`."""
    counts = ", ".join(f"{len(_of(findings, verdict))} {verdict}" for verdict in Verdict)
    return f"{len(findings)} packages: {counts}"


def as_table(findings: Sequence[Finding]) -> str:
    """The report for a terminal, at most 79 columns wide: all packages, then those that a person has to look at."""
    rows = [(finding.package, finding.version, finding.licence, _decision(finding)) for finding in findings]
    head = ("package", "version", "licence", "verdict")
    widths = _widths(head, rows)
    lines = [_row(head, widths), _row(["-" * width for width in widths], widths)]
    lines += [_row(row, widths) for row in rows]
    for verdict, title in ((Verdict.DENY, "Denied"), (Verdict.UNKNOWN, "For a person to decide")):
        if chosen := _of(findings, verdict):
            lines += ["", f"{title} ({len(chosen)})", *(line for finding in chosen for line in _details(finding))]
    return "\n".join([*lines, "", summary(findings)])


def as_markdown(findings: Sequence[Finding]) -> str:
    """The whole report as a page: what needs attention first, then everything."""
    parts = ["# Licence audit", f"{summary(findings)}."]
    for verdict, title in ((Verdict.DENY, "Denied"), (Verdict.UNKNOWN, "For a person to decide")):
        if chosen := _of(findings, verdict):
            parts += [f"## {title}", _markdown_table(chosen)]
    parts += ["## All packages", _markdown_table(findings)]
    return "\n\n".join(parts) + "\n"


def as_csv(findings: Sequence[Finding]) -> str:
    """One line per package under a line of column names."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(_COLUMNS)
    rows.writerows(_cells(finding) for finding in findings)
    return out.getvalue()


def _of(findings: Sequence[Finding], verdict: Verdict) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is verdict]


def _decision(finding: Finding) -> str:
    """The verdict, with its rule where one rule decided and says more than the licence does."""
    if finding.verdict is Verdict.UNKNOWN or finding.rule == finding.licence or ", " in finding.rule:
        return str(finding.verdict)
    return f"{finding.verdict}: {finding.rule}"


def _details(finding: Finding) -> list[str]:
    rule = f"rule {finding.rule}" if finding.verdict is Verdict.DENY else finding.rule
    text = f"{finding.package} {finding.version} ({finding.licence}): {'; '.join([rule, *finding.notes])}"
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _widths(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """As wide as the longest cell; where that is too wide together, the widest columns give way."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    while sum(widths) + 2 * (len(widths) - 1) > _WIDTH:
        widths[widths.index(max(widths))] -= 1
    return widths


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    cut = (cell if len(cell) <= width else cell[: width - 1] + "…" for cell, width in zip(cells, widths, strict=True))
    return "  ".join(cell.ljust(width) for cell, width in zip(cut, widths, strict=True)).rstrip()


def _markdown_table(findings: Sequence[Finding]) -> str:
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    for finding in findings:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(finding)) + " |")
    return "\n".join(lines)


def _cells(finding: Finding) -> list[str]:
    return [
        finding.package,
        finding.version,
        finding.licence,
        str(finding.verdict),
        finding.rule,
        finding.source,
        "; ".join(finding.notes),
    ]
