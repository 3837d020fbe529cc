"""The licence audit on real input: from any folder, on what is really installed, and killed by its demonstration.

What no rule speaks about is asked: all at once; answered here, from another process, or denied by silence.
"""

import csv
import os
import re
import subprocess
import sys
from datetime import timedelta
from importlib.metadata import distributions
from pathlib import Path

import pytest

from licence_audit import app, demo, short
from licence_audit.policy import Policy
from stepwell.testing import runtime
from tests.checkout import ROOT

APP = ROOT / "examples" / "licence_audit" / "app.py"
POLICY = APP.with_name("policy.yaml")


def stepwell(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder that holds nothing of the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEPWELL_", "LICENCE_AUDIT_"))}
    return subprocess.run(
        [sys.executable, "-m", "stepwell", *arguments],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=120,
    )


async def test_each_package_is_one_step_and_each_unknown_one_question() -> None:
    policy = short.Policy(allow=["MIT", "MIT License"], deny=[])
    async with runtime(short.app) as rt:
        run = await rt.start(short.licence_audit, policy)
        await run.question()
        unknown = len(await rt.questions.list())
        assert unknown > 1
        for question in await rt.questions.list():
            await question.answer("allow")
        result = await run.result()
        assert result.output["deny"] == 0
        assert len((await result.artifacts[0].text()).splitlines()) == result.output["allow"] + 1
        inspected = [key for key in rt.executed if key.startswith("inspect")]
        assert len(inspected) == len(set(inspected)) == result.output["allow"]  # none twice, whatever the replays


async def test_silence_denies() -> None:
    async with runtime(short.app) as rt:
        begin = rt.clock.now()
        result = await rt.run(short.licence_audit, short.Policy(allow=[], deny=[]))
        assert result.output["allow"] == 0
        assert rt.clock.now() - begin == timedelta(days=2)


async def test_a_person_decides_some_and_silence_the_rest_and_a_crash_asks_nobody_again() -> None:
    async with runtime(app.app) as rt:
        begin = rt.clock.now()
        run = await rt.start(app.licence_audit, Policy(allow=["MIT"], deny=[], days_to_answer=5))
        first = await run.question()
        asked = [question.id for question in await rt.questions.list()]
        await rt.crash()
        assert [question.id for question in await rt.questions.list()] == asked
        await first.answer("allow")
        result = await run.result()
        assert rt.clock.now() - begin == timedelta(days=5)
        rows = list(csv.DictReader((await result.artifacts[1].text()).splitlines()))
        decided = [(row["verdict"], row["rule"]) for row in rows if row["rule"] in ("a person", "nobody answered")]
        assert decided.count(("allow", "a person")) == 1
        assert decided.count(("deny", "nobody answered")) == len(asked) - 1
        assert {row["verdict"] for row in rows} == {"allow", "deny"}


def test_the_audit_runs_from_any_folder_and_keeps_its_report(tmp_path: Path) -> None:
    asking = "days_to_answer: 2"
    assert asking in POLICY.read_text()
    (tmp_path / "policy.yaml").write_text(POLICY.read_text().replace(asking, "days_to_answer: 0"), encoding="utf-8")
    ended = stepwell("run", str(APP), "--input", "@policy.yaml", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    installed = {package.name for package in distributions() if package.name}
    assert re.search(rf"^{len(installed)} packages: \d+ allow, \d+ deny, \d+ unknown$", ended.stdout, re.MULTILINE)
    table = stepwell("runs", "artifact", "last", "licences.csv", folder=tmp_path)
    rows = list(csv.DictReader(table.stdout.splitlines()))
    assert {row["package"] for row in rows} == installed
    assert {row["verdict"] for row in rows} <= {"allow", "deny", "unknown"}
    licences = {row["package"]: row["licence"] for row in rows}
    assert licences["click"] == "BSD-3-Clause"
    assert licences["pytest"] == "MIT"
    assert licences["typing_extensions"] == "PSF-2.0"


def test_a_policy_with_a_misspelled_field_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("alow: [MIT]\ndeny: []\n", encoding="utf-8")
    ended = stepwell("run", str(APP), "--input", "@policy.yaml", folder=tmp_path)
    assert ended.returncode == 2
    assert "input.alow: Unknown field" in ended.stderr
    assert "input.allow: Field required" in ended.stderr


def test_the_demonstration_kills_continues_and_proves(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, APP.with_name("demo.py")], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^ +May we use apsw ", ended.stdout, re.MULTILINE)
    assert re.search(r"^ +\$ stepwell answer [0-9a-z]{6} allow$", ended.stdout, re.MULTILINE)
    assert re.search(r"^apsw .* allow: a person$", ended.stdout, re.MULTILINE)
    *lines, last = ended.stdout.splitlines()
    found = re.fullmatch(r"steps executed: (\d+), repeated: ([01])", last)
    assert found is not None, last
    packages = len({package.name for package in distributions() if package.name})
    assert int(found[1]) == packages + int(found[2])
    assert max(len(line) for line in lines) <= 80
    assert list(tmp_path.iterdir()) == []


PACKAGES = {"ant", "bee", "cat"}
VERDICTS = dict.fromkeys(PACKAGES, "allow")


@pytest.mark.parametrize(
    ("before", "after", "verdicts", "told", "code"),
    [
        (["ant", "bee"], ["cat"], VERDICTS, "steps executed: 3, repeated: 0", 0),
        (["ant", "bee"], ["bee", "cat"], VERDICTS, "steps executed: 4, repeated: 1", 0),
        (["ant", "bee"], ["ant", "bee", "cat"], VERDICTS, "steps executed: 5, repeated: 2", 1),
        (["ant", "bee"], [], VERDICTS, "not complete: cat", 1),
        (["ant", "bee"], ["cat"], {"ant": "allow"}, "not complete: bee, cat", 1),
    ],
    ids=["nothing again", "one again", "two again", "one not inspected", "two not reported"],
)
def test_the_proof_counts_what_ran_again_and_misses_nothing(
    capsys: pytest.CaptureFixture[str],
    before: list[str],
    after: list[str],
    verdicts: dict[str, str],
    told: str,
    code: int,
) -> None:
    assert demo.prove(before, after, PACKAGES, verdicts) == code
    assert told in capsys.readouterr().out
