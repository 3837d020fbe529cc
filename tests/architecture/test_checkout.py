"""The checkout as a whole: no place of any one machine, hashed locks that fit the project file, commands that exist."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.checkout import ROOT, files

# Put together from parts, so that this file passes its own test.
HOSTS = [
    ".".join(parts)
    for parts in (
        ("py" + "pi", "org"),
        ("python" + "hosted", "org"),
        ("registry", "npm" + "js", "org"),
        ("proxy", "go" + "lang", "org"),
        ("crates", "io"),
        ("deb", "deb" + "ian", "org"),
    )
]
INDEX_OPTIONS = ["-".join(("", "", "index", "url")), "-".join(("extra", "index", "url")), "-".join(("find", "links"))]
MACHINE_FOLDERS = ["work", "root", "farm", "opt/" + "pypi", "tmp/" + "venv"]

TRACES = re.compile(
    "|".join(
        [
            *(re.escape(text) for text in HOSTS + INDEX_OPTIONS),
            rf"(?<![\w.-])/(?:{'|'.join(MACHINE_FOLDERS)})/",
            r"https?://\S+\.(?:whl|tar\.gz)",
        ]
    )
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ["requirements/core.txt", "requirements/dev.txt"]


def pins(lock: str) -> dict[str, str]:
    """Package name to pinned version, of one lock."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def normal(requirement: str) -> str:
    """The package name of a requirement, spelled as locks spell it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]).lower()


def test_no_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    found = []
    for path in files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in TRACES.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_trace"),
    [
        (f"see https://{HOSTS[0]}/project/x", True),
        (f"pip install {INDEX_OPTIONS[0]}=x", True),
        ("open('/" + "root/notes')", True),
        ("https://host.example/x-1.0-py3-none-any" + ".whl", True),
        ("the folder framework/ and https://example.com/work", False),
        ("tests/root/", False),
    ],
)
def test_a_trace_of_one_machine_is_recognised(text: str, is_trace: bool) -> None:
    assert bool(TRACES.search(text)) is is_trace


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_its_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_both_locks_name_the_same_versions() -> None:
    everything = pins("requirements/dev.txt")
    assert {name: everything.get(name) for name in pins("requirements/core.txt")} == pins("requirements/core.txt")


def test_the_locks_hold_what_the_project_file_asks_for() -> None:
    core = {normal(requirement) for requirement in PROJECT["project"]["dependencies"]}
    assert core <= set(pins("requirements/core.txt"))
    groups = [entry for group in PROJECT["dependency-groups"].values() for entry in group if isinstance(entry, str)]
    extras = [entry for extra in PROJECT["project"]["optional-dependencies"].values() for entry in extra]
    wanted = {normal(requirement) for requirement in groups + extras} - {"stepwell"}
    assert wanted <= set(pins("requirements/dev.txt"))


def test_the_core_stays_small() -> None:
    assert len(pins("requirements/core.txt")) <= 14


def test_the_build_backend_is_locked_so_that_setting_up_fetches_nothing_unhashed() -> None:
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]


def test_make_without_a_target_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    shown = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert [line.split()[1] for line in shown.stdout.splitlines()] == phony.group(1).split()


@pytest.mark.parametrize("script", [".ci/run", "scripts/make-venv.sh"])
def test_a_script_can_be_run(script: str) -> None:
    path: Path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text(encoding="utf-8").startswith("#!")
