"""The audit on one page: what the metadata says, judged by two lists; a person is asked about the rest."""

import csv
import io
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from importlib.metadata import distribution, distributions

from stepwell import App, Context

app = App("compliance")


class Verdict(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True)
class Policy:
    allow: list[str]
    deny: list[str]


@dataclass(frozen=True)
class Finding:
    package: str
    version: str
    licence: str
    verdict: Verdict | None = None  # None: no rule speaks about it
    decided_by: str = "rule"


def list_packages() -> list[str]:
    return sorted({dist.metadata["Name"] for dist in distributions()}, key=str.lower)


def inspect(policy: Policy, package: str) -> Finding:
    meta = distribution(package).metadata.json
    trove = [c.rsplit(" :: ", 1)[-1] for c in meta.get("classifier", []) if c.startswith("License")]
    licence = str(
        meta.get("license_expression") or next(iter(trove), None) or meta.get("license", "unknown")
    ).splitlines()[0]
    verdict = Verdict.ALLOW if licence in policy.allow else Verdict.DENY if licence in policy.deny else None
    return Finding(package, str(meta["version"]), licence, verdict)


def as_csv(findings: list[Finding]) -> str:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["package", "version", "licence", "verdict", "decided by"])
    rows.writerows([f.package, f.version, f.licence, f.verdict, f.decided_by] for f in findings)
    return out.getvalue()


@app.agent
async def licence_audit(ctx: Context, policy: Policy) -> dict[str, int]:
    packages = await ctx.step(list_packages)
    findings = await ctx.map(partial(inspect, policy), packages, key=str, limit=8)  # one step each

    async def settle(finding: Finding) -> Finding:
        if finding.verdict:
            return finding
        verdict = await ctx.ask(
            f"May we use {finding.package} ({finding.licence})?",
            Verdict,
            timeout=timedelta(days=2),
            default=Verdict.DENY,
        )
        return replace(finding, verdict=verdict, decided_by="person")

    settled = await ctx.gather(*(settle(finding) for finding in findings))  # all questions are open at once
    await ctx.artifact("licences.csv", as_csv(settled))
    return {verdict: sum(f.verdict is verdict for f in settled) for verdict in Verdict}
