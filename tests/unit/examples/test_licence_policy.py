"""The licence audit's policy, report and agent: what is allowed, by which rule, and how it is told."""

import csv
from pathlib import Path

import pytest
from pydantic import ValidationError

from licence_audit.app import app, decide, inspect, licence_audit, list_packages
from licence_audit.expressions import parse
from licence_audit.policy import Policy, Verdict
from licence_audit.reading import Reading
from licence_audit.report import Finding, as_csv, as_markdown, as_table
from stepwell import Runtime

POLICY = Policy(
    allow=["MIT", "Apache-2.0", "MPL-*", "GPL-2.0-only WITH Classpath-exception-2.0"],
    deny=["GPL-*", "MPL-1.1", "AGPL-3.0-only"],
)


@pytest.mark.parametrize(
    ("expression", "verdict", "rule"),
    [
        ("MIT", "allow", "MIT"),
        ("GPL-3.0-or-later", "deny", "GPL-*"),
        ("LGPL-3.0-only", "unknown", "no rule for LGPL-3.0-only"),
        ("MPL-2.0", "allow", "MPL-*"),
        ("MPL-1.1", "deny", "MPL-1.1"),
        ("GPL-3.0-only OR MIT", "allow", "MIT"),
        ("GPL-3.0-only OR LGPL-3.0-only", "unknown", "no rule for LGPL-3.0-only"),
        ("GPL-3.0-only OR AGPL-3.0-only", "deny", "GPL-*"),
        ("MIT AND GPL-3.0-only", "deny", "GPL-*"),
        ("MIT AND LGPL-3.0-only", "unknown", "no rule for LGPL-3.0-only"),
        ("MIT AND Apache-2.0", "allow", "MIT, Apache-2.0"),
        ("MPL-2.0 AND (GPL-3.0-only OR MIT)", "allow", "MPL-*, MIT"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "allow", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("GPL-3.0-only WITH GCC-exception-3.1", "deny", "GPL-*"),
        ("Apache-2.0 WITH LLVM-exception", "allow", "Apache-2.0"),
    ],
)
def test_the_policy_judges_expressions_part_by_part(expression: str, verdict: str, rule: str) -> None:
    assert POLICY.judge(parse(expression)) == (Verdict(verdict), rule)


def test_the_shipped_policy_can_be_read_and_leaves_the_lgpl_to_a_person() -> None:
    from ruamel.yaml import YAML

    text = (Path(__file__).parents[3] / "examples" / "licence_audit" / "policy.yaml").read_text(encoding="utf-8")
    policy = Policy.model_validate(YAML(typ="safe", pure=True).load(text))
    verdicts = [policy.judge(parse(licence)).verdict for licence in ("MIT", "AGPL-3.0-only", "LGPL-2.1-only")]
    assert verdicts == [Verdict.ALLOW, Verdict.DENY, Verdict.UNKNOWN]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"allow": ["MIT"], "deny": ["MIT"]}, "MIT is both allowed and denied"),
        ({"allow": [""], "deny": []}, "at least 1 character"),
        ({"allow": [], "deny": [], "alow": []}, "alow"),
        ({"allow": [], "deny": [], "clarify": {"x": "MIT OR"}}, "it ends where a licence should be"),
        ({"allow": [], "deny": [], "fail_on": ["allow"]}, "'deny' or 'unknown'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Policy.model_validate(wrong)


def test_what_a_person_found_out_is_found_under_every_spelling_of_the_name() -> None:
    policy = Policy(allow=[], deny=[], clarify={"Ruamel_Yaml": "MIT"})
    assert policy.clarified("ruamel.yaml") == "MIT"
    assert policy.clarified("ruamel") is None


def test_metadata_that_its_licence_file_contradicts_allows_nothing() -> None:
    doubtful = Reading(parse("MIT"), "License", ["COPYING reads as Zlib"], contradicted=True)
    assert decide(POLICY, doubtful) == (Verdict.UNKNOWN, "metadata and licence file disagree")
    denied = Reading(parse("GPL-3.0-only"), "License", ["COPYING reads as Zlib"], contradicted=True)
    assert decide(POLICY, denied).verdict is Verdict.DENY


# ---------------------------------------------------------------- the report

FINDINGS = [
    Finding("good", "1.0", "MIT", Verdict.ALLOW, "MIT", "License", []),
    Finding("either", "2.0", "MIT OR GPL-3.0-only", Verdict.ALLOW, "MIT", "License-Expression", []),
    Finding("bad", "0.1", "GPL-3.0-only", Verdict.DENY, "GPL-*", "classifier", []),
    Finding("odd|one", "10.20.30.post400", "UNKNOWN", Verdict.UNKNOWN, "no licence found", "", ["says 'a, b'"] * 9),
]


def test_the_table_fits_a_terminal_and_lists_what_a_person_has_to_look_at() -> None:
    table = as_table(FINDINGS)
    assert max(len(line) for line in table.splitlines()) <= 79
    assert "Denied (1)\n  bad 0.1 (GPL-3.0-only): rule GPL-*" in table
    assert "For a person to decide (1)\n  odd|one" in table
    assert table.endswith("4 packages: 2 allow, 1 deny, 1 unknown")
    wide = [Finding("p" * 60, "1" * 40, "MIT AND " * 9 + "MIT", Verdict.ALLOW, "rule" * 20, "", [])]
    assert max(len(line) for line in as_table(wide).splitlines()) <= 79


def test_the_csv_gives_every_finding_back() -> None:
    rows = list(csv.DictReader(as_csv(FINDINGS).splitlines()))
    assert [(row["package"], row["verdict"], row["rule"]) for row in rows] == [
        (finding.package, finding.verdict, finding.rule) for finding in FINDINGS
    ]


def test_the_markdown_page_has_a_table_row_for_every_finding() -> None:
    page = as_markdown(FINDINGS)
    assert "## Denied" in page
    assert "| odd\\|one |" in page
    assert sum(line.startswith("| good |") for line in page.splitlines()) == 1


# ---------------------------------------------------------------- the agent


def package(site: Path, name: str, *metadata: str) -> None:
    """Install a package without code."""
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *metadata]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment with three packages and a leftover."""
    site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    package(site, "Zebra", "License: MIT")
    package(site, "ant", "License: GPLv3")
    package(site, "bee")
    (site / "~ant-1.0.dist-info").mkdir()
    return tmp_path / "venv"


async def test_another_environment_is_audited_from_its_folder(environment: Path) -> None:
    policy = Policy(allow=["MIT"], deny=["GPL-*"], clarify={"bee": "MIT"}, environment=str(environment))
    async with Runtime(app, store="memory://") as runtime:
        result = await runtime.run(licence_audit, policy)
    assert "ant      1.0      GPL-3.0-only  deny: GPL-*" in result.output
    assert result.output.endswith("3 packages: 2 allow, 1 deny, 0 unknown")
    assert [artifact.name for artifact in result.artifacts] == ["licences.md", "licences.csv"]


async def test_a_policy_can_make_the_run_fail_and_the_artifacts_are_kept(environment: Path) -> None:
    policy = Policy(allow=["MIT"], deny=["GPL-*"], environment=str(environment), fail_on=["deny"], days_to_answer=0)
    async with Runtime(app, store="memory://") as runtime:
        result = await runtime.run(licence_audit, policy)
        text = await result.artifacts[1].text()
    assert (result.status, result.reason) == ("failed", "licences.refused")
    assert result.error is not None
    assert result.error.message.endswith("refused: ant (GPL-3.0-only)")
    assert "bee,1.0,UNKNOWN,unknown" in text


async def test_a_folder_without_packages_is_an_error_that_names_it(tmp_path: Path) -> None:
    async with Runtime(app, store="memory://") as runtime:
        result = await runtime.run(licence_audit, Policy(allow=[], deny=[], environment=str(tmp_path)))
    assert result.error is not None
    assert result.error.code == "licences.environment"
    assert str(tmp_path) in result.error.message


def test_packages_are_listed_once_and_in_order_whatever_their_case(environment: Path) -> None:
    package(environment / "lib" / "python3.11" / "site-packages" / "more", "unrelated")
    assert list_packages(str(environment)) == ["ant", "bee", "Zebra"]


def test_a_package_that_is_gone_or_unreadable_is_a_finding(environment: Path) -> None:
    policy = Policy(allow=["MIT"], deny=[], environment=str(environment))
    assert inspect(policy, "gone").notes == ["it is not installed any more"]
    (environment / "lib" / "python3.11" / "site-packages" / "Zebra-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe")
    assert inspect(policy, "Zebra").verdict is Verdict.UNKNOWN
