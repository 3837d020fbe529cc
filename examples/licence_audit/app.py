"""Audit the licences of the installed Python packages against a policy; ask a person about what no rule speaks about.

    stepwell run examples/licence_audit/app.py --input @policy.yaml

Every package is a step: killed at any moment, the audit goes on with the package that it was at. While it waits for
answers it is a row in the store, and no process.
"""

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from licence_audit.expressions import parse
from licence_audit.policy import UNKNOWN_LICENCE, Answer, Decision, Policy, Verdict, normalised
from licence_audit.reading import Reading, read
from licence_audit.report import Finding, as_csv, as_markdown, as_table, summary
from stepwell import App, AskTimeout, Context, Fail

app = App("licences")


@app.agent
async def licence_audit(ctx: Context, policy: Policy) -> str:
    """Audit the licences of the installed packages against a policy."""
    packages = await ctx.step(list_packages, policy.environment)
    found = [await ctx.step(inspect, policy, package, name=f"inspect {package}") for package in packages]
    findings = list(await ctx.gather(*(settle(ctx, policy, finding) for finding in found)))  # all questions at once
    await ctx.artifact("licences.md", as_markdown(findings))
    await ctx.artifact("licences.csv", as_csv(findings))
    refuse(findings, policy)
    return as_table(findings)


async def settle(ctx: Context, policy: Policy, finding: Finding) -> Finding:
    """Let a person decide what no rule does. Silence denies."""
    if finding.verdict is not Verdict.UNKNOWN or not policy.days_to_answer:
        return finding
    try:
        answer = await ctx.ask(
            f"May we use {finding.package} ({finding.licence})?",
            Answer,
            details={"why": "; ".join([finding.rule, *finding.notes])},
            timeout=timedelta(days=policy.days_to_answer),
        )
    except AskTimeout:
        return replace(finding, verdict=Verdict.DENY, rule="nobody answered")
    return replace(finding, verdict=Verdict(answer), rule="a person")


# ---------------------------------------------------------------- steps


def list_packages(environment: str | None) -> list[str]:
    """The names of the installed packages, in order. What has no name is a leftover that no installer counts either."""
    found: dict[str, str] = {}
    for package in distributions(path=search_path(environment)):
        if package.metadata["Name"]:
            found.setdefault(normalised(package.name), package.name)
    return [found[name] for name in sorted(found)]


def inspect(policy: Policy, package: str) -> Finding:
    """Read one package and judge it. A package that cannot be read is a finding, too."""
    note_effect(package)
    installed = next(iter(_named(package, policy.environment)), None)
    if installed is None:
        return _unreadable(package, "", "it is not installed any more")
    try:
        version, reading = installed.version, read(installed)
    except (UnicodeDecodeError, KeyError) as error:
        return _unreadable(package, "", f"its metadata cannot be read: {type(error).__name__}")
    clarified = policy.clarified(package)
    if clarified is not None:
        reading = Reading(parse(clarified), "policy", reading.notes)
    licence = UNKNOWN_LICENCE if reading.expression is None else str(reading.expression)
    verdict, rule = decide(policy, reading)
    return Finding(installed.name, version, licence, verdict, rule, reading.source, reading.notes)


# ---------------------------------------------------------------- rules


def decide(policy: Policy, reading: Reading) -> Decision:
    """The verdict on a reading. Metadata that its licence file contradicts allows nothing: a person has to look."""
    if reading.expression is None:
        return Decision(Verdict.UNKNOWN, "no licence found")
    decision = policy.judge(reading.expression)
    if reading.contradicted and decision.verdict is Verdict.ALLOW:
        return Decision(Verdict.UNKNOWN, "metadata and licence file disagree")
    return decision


def refuse(findings: list[Finding], policy: Policy) -> None:
    """End the run as failed where the policy asks for it. The artifacts are written by then."""
    refused = [finding for finding in findings if finding.verdict in policy.fail_on]
    if refused:
        named = ", ".join(f"{finding.package} ({finding.licence})" for finding in refused)
        raise Fail(f"{summary(findings)}; refused: {named}", code="licences.refused")


def search_path(environment: str | None) -> list[str]:
    """Where packages are looked for: in a virtual environment, in a folder of packages, or where Python looks."""
    if environment is None:
        return sys.path
    folder = Path(environment)
    inside = sorted(folder.glob("lib/python*/site-packages"))
    if not inside and not any(folder.glob("*.dist-info")) and not any(folder.glob("*.egg-info")):
        raise Fail(
            f"{folder.absolute()} holds no packages; name a virtual environment or its site-packages",
            code="licences.environment",
        )
    return [str(path) for path in inside or [folder]]


def _named(package: str, environment: str | None) -> Iterable[Distribution]:
    return distributions(name=package, path=search_path(environment))


def _unreadable(package: str, version: str, why: str) -> Finding:
    return Finding(package, version, UNKNOWN_LICENCE, Verdict.UNKNOWN, "no licence found", "", [why])


# ---------------------------------------------------------------- for the demonstration

EFFECTS: Final = "LICENCE_AUDIT_EFFECTS"
PACE: Final = "LICENCE_AUDIT_PACE"


def note_effect(package: str) -> None:
    """Leave a trace outside the store that a package is being inspected, and take the time to be killed meanwhile.

    Does nothing unless the environment names a file; `demo.py` counts its lines to prove what ran how often.
    """
    if log := os.environ.get(EFFECTS):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{package}\n")
        time.sleep(float(os.environ.get(PACE, "0")))
