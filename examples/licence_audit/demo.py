"""Starts the audit, kills its process with SIGKILL in the middle, continues it, answers what it asks, and proves what
ran again.

    make demo

The proof does not come from the store: every inspection of a package also leaves a line in a log beside it.
Ends with 0 when the report is complete and at most one step ran twice, else with 1.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from itertools import groupby
from pathlib import Path
from typing import Final, NoReturn

EXAMPLES: Final = Path(__file__).resolve().parents[1]
AUDIT: Final = "licence_audit/app.py"
POLICY: Final = "licence_audit/policy.yaml"
SECONDS_PER_PACKAGE: Final = 0.03
LONGEST_WAIT: Final = 60
WIDTH: Final = 78


class Stage:
    """Where the demonstration plays: a new folder with the store, and the log of effects beside it."""

    def __init__(self, folder: Path) -> None:
        self.store = f"sqlite:///{folder / 'audit.db'}"
        self.log = folder / "effects.log"
        self.environment = os.environ | {
            "STEPWELL_STORE": self.store,
            "LICENCE_AUDIT_EFFECTS": str(self.log),
            "LICENCE_AUDIT_PACE": str(SECONDS_PER_PACKAGE),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command `stepwell` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "stepwell", *arguments],
            cwd=EXAMPLES,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[str, str]:
        """Run the command to its end; what it wrote to stdout and to stderr. A failure ends the demonstration."""
        return self.end_of(self.start(*arguments))

    def end_of(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Wait for the end of a command that was started."""
        output, progress = process.communicate(timeout=LONGEST_WAIT)
        if process.returncode != 0:
            give_up(f"{' '.join(map(str, process.args[2:]))} ended with {process.returncode}", progress)  # type: ignore[index]
        return output, progress

    def inspected(self) -> list[str]:
        """The packages that were inspected, in order, as often as they were."""
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []


def main() -> int:
    """Run the demonstration."""
    packages = {package.name for package in distributions() if package.name}
    title(f"An audit of {len(packages)} packages, killed in the middle and continued")
    with tempfile.TemporaryDirectory(prefix="stepwell-demo-") as folder:
        stage = Stage(Path(folder))

        explain(1, "Start the audit: one step per package, and one file as the store.")
        command(f"stepwell run {AUDIT} --input @{POLICY}")
        progress = kill_in_the_middle(stage, len(packages) // 2)
        before = stage.inspected()
        indent(shortened(progress))

        explain(2, f"kill -9 after {len(before)} packages: no handler ran, nothing was saved.")
        command("stepwell runs list")
        indent(stage.run("runs", "list")[0].splitlines())

        explain(3, "Continue: a new process finds the old one dead and takes over its run.")
        command(f"stepwell run {AUDIT} --continue")
        continued = stage.start("run", AUDIT, "--continue")
        asked = answer_all(stage, continued)
        report, told = stage.end_of(continued)
        indent(shortened(told.splitlines()))

        explain(4, "What no rule speaks about, the audit asked. Here somebody answers, in a third process.")
        for question, answered in asked:
            tell(question)
            command(answered)
        if not asked:
            tell("In this environment the rules speak about everything: nothing was asked.")

        explain(5, "The report, as the second process wrote it to stdout.")
        print(report, flush=True)
        tell("The run also keeps it as files:")
        command("stepwell runs artifact last licences.csv")
        findings = stage.run("runs", "artifact", "last", "licences.csv")[0]
        indent(shortened(findings.splitlines()))

        after = stage.inspected()[len(before) :]
        return prove(before, after, packages, verdicts_of(findings))


def kill_in_the_middle(stage: Stage, enough: int) -> list[str]:
    """Start the audit, kill it once that many packages were inspected, and give its progress up to then."""
    process = stage.start("run", AUDIT, "--input", f"@{POLICY}")
    deadline = time.monotonic() + LONGEST_WAIT
    while len(stage.inspected()) < enough:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            give_up("the audit did not get to the middle", process.communicate()[1])
        time.sleep(0.002)
    process.kill()
    return process.communicate()[1].splitlines()


def answer_all(stage: Stage, process: subprocess.Popen[str]) -> list[tuple[str, str]]:
    """Allow whatever the audit asks until it ends: each question, and the command that answered it."""
    answered: list[tuple[str, str]] = []
    deadline = time.monotonic() + LONGEST_WAIT
    while process.poll() is None and time.monotonic() < deadline:
        for question in json.loads(stage.run("inbox", "--json")[0] or "[]"):
            stage.run("answer", question["id"], "allow", "--by", "demo")
            answered.append((question["text"], f"stepwell answer {question['id'][-6:]} allow"))
    return answered


def verdicts_of(findings: str) -> dict[str, str]:
    """The verdict on each package, from the CSV."""
    return {row["package"]: row["verdict"] for row in csv.DictReader(findings.splitlines())}


def prove(before: Sequence[str], after: Sequence[str], packages: set[str], verdicts: dict[str, str]) -> int:
    """Compare the log of effects with the packages and the report, and tell what ran again. 0 if all is well."""
    counted = Counter([*before, *after])
    twice = [package for package, times in counted.items() for _ in range(times - 1)]
    explain(6, "The proof: a log outside the store, with a line for every inspection begun.")
    tell(f"{len(before)} inspections began before the kill, {len(after)} after it.")
    if twice == [before[-1]]:
        tell(
            f"{before[-1]} was being inspected when the process died. Its step had begun and was not recorded, so it "
            f"ran again. The {len(before) - 1} before it were remembered."
        )
    elif not twice:
        tell("The kill fell between two steps: everything before it was remembered, and nothing ran again.")
    missing = sorted(packages.symmetric_difference(counted) | packages.symmetric_difference(verdicts))
    if missing:
        tell(f"The report is not complete: {', '.join(missing)}")
    print(f"\nsteps executed: {counted.total()}, repeated: {len(twice)}")
    return 0 if not missing and len(twice) <= 1 else 1


# ---------------------------------------------------------------- how it looks


def shortened(lines: Sequence[str]) -> Iterator[str]:
    """Lines with the middle of long stretches of the same kind left out."""
    for _, stretch in groupby(lines, key=lambda line: line.split()[0] if line.startswith(" ") else ""):
        same = list(stretch)
        if len(same) <= 5:
            yield from same
        else:
            margin = " " * (4 if same[0].startswith(" ") else 0)
            yield from (*same[:2], f"{margin}… {len(same) - 4} more", *same[-2:])


def styled(text: str, code: str) -> str:
    """Text in bold or dim on a terminal; as it is elsewhere."""
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def title(text: str) -> None:
    """The headline."""
    print(f"{styled(text, '1')}\n{'=' * len(text)}", flush=True)


def explain(number: int, text: str) -> None:
    """What comes next, and why."""
    first, *more = textwrap.wrap(text, WIDTH - 3)
    print(f"\n{styled(f'{number}. {first}', '1')}")
    for line in more:
        print(styled(f"   {line}", "1"))
    print(flush=True)


def command(text: str) -> None:
    """A command as a person would type it."""
    print(f"   $ {text}", flush=True)


def indent(lines: Iterator[str] | Sequence[str]) -> None:
    """What a command wrote."""
    for line in lines:
        print(f"   {line}".rstrip())
    sys.stdout.flush()


def tell(text: str) -> None:
    """A sentence or two."""
    for line in textwrap.wrap(text, WIDTH - 3):
        print(f"   {line}")


def give_up(why: str, progress: str) -> NoReturn:
    """End without success."""
    print(progress, file=sys.stderr)
    sys.exit(f"demo: {why}")


if __name__ == "__main__":
    sys.exit(main())
