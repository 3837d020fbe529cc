"""The policy: which licences are allowed and denied, and what a person has found out. It judges expressions."""

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from licence_audit.expressions import Expression, Licence, parse

UNKNOWN_LICENCE: Final = "UNKNOWN"


class Verdict(StrEnum):
    """What the policy says about a package."""

    ALLOW = "allow"
    DENY = "deny"
    UNKNOWN = "unknown"


class Answer(StrEnum):
    """What a person may say about a package of which no rule speaks."""

    ALLOW = "allow"
    DENY = "deny"


class Decision(NamedTuple):
    """A verdict and the rule that decided it."""

    verdict: Verdict
    rule: str


def _is_expression(text: str) -> str:
    parse(text)
    return text


Rule = Annotated[str, Field(min_length=1, description="an SPDX identifier; * stands for anything: GPL-*")]
Clarification = Annotated[str, AfterValidator(_is_expression)]


class Policy(BaseModel):
    """The input of the audit. A name without * is stronger than one with it; between equals, deny is stronger."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: list[Rule]
    deny: list[Rule]
    clarify: dict[str, Clarification] = Field(
        default_factory=dict, description="by package: the licence that a person has found out, as an SPDX expression"
    )
    environment: str | None = Field(
        default=None, description="a virtual environment or its site-packages; without it, the one that runs the audit"
    )
    days_to_answer: float = Field(
        default=2, ge=0, description="how long people may take to decide on what is unknown; 0: nobody is asked"
    )
    fail_on: list[Literal["deny", "unknown"]] = Field(
        default_factory=list, description="verdicts that make the run fail, after the report is written"
    )

    @model_validator(mode="after")
    def _check_that_rules_agree(self) -> "Policy":
        both = sorted(set(self.allow) & set(self.deny))
        if both:
            raise ValueError(f"{', '.join(both)} is both allowed and denied")
        return self

    def clarified(self, package: str) -> str | None:
        """What a person has found out about a package; its name may be spelled in any of the usual ways."""
        wanted = normalised(package)
        return next((text for name, text in self.clarify.items() if normalised(name) == wanted), None)

    def judge(self, expression: Expression) -> Decision:
        """Allowed if some choice of an `OR` is; an `AND` is as good as its worst part."""
        if isinstance(expression, Licence):
            return self._judge_licence(expression)
        decisions = [self.judge(part) for part in expression.parts]
        order = _BEST_FIRST if expression.operator == "OR" else _BEST_FIRST[::-1]
        verdict = min((decision.verdict for decision in decisions), key=order.index)
        rules = [decision.rule for decision in decisions if decision.verdict is verdict]
        return Decision(verdict, rules[0] if expression.operator == "OR" else ", ".join(dict.fromkeys(rules)))

    def _judge_licence(self, licence: Licence) -> Decision:
        for names in ([licence.id], [licence.base]):
            for verdict, rules in ((Verdict.DENY, self.deny), (Verdict.ALLOW, self.allow)):
                for rule in rules:
                    if rule in names:
                        return Decision(verdict, rule)
        for verdict, rules in ((Verdict.DENY, self.deny), (Verdict.ALLOW, self.allow)):
            for rule in rules:
                if fnmatchcase(licence.id, rule) or fnmatchcase(licence.base, rule):
                    return Decision(verdict, rule)
        return Decision(Verdict.UNKNOWN, f"no rule for {licence.id}")


_BEST_FIRST: Final = [Verdict.ALLOW, Verdict.UNKNOWN, Verdict.DENY]


def normalised(package: str) -> str:
    """A package's name as all its spellings have it: `ruamel.yaml`, `Ruamel_YAML` → `ruamel-yaml`."""
    return "-".join(part for part in package.lower().replace("_", "-").replace(".", "-").split("-") if part)
