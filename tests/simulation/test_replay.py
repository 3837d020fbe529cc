"""One seed is one run: it replays exactly, also in another interpreter."""

import os
import subprocess
import sys

from tests.checkout import ROOT
from tests.simulation.plans import Item, Plan, draw
from tests.simulation.world import simulate

PRINT = "from tests.simulation.plans import draw; from tests.simulation.world import simulate; "


def test_a_seed_gives_the_same_trace_a_hundred_times() -> None:
    seed = next(seed for seed in range(100) if simulate(draw(seed)).faults >= 4)
    assert len({simulate(draw(seed)).digest for _ in range(100)}) == 1


def test_a_seed_gives_the_same_trace_whatever_strings_hash_to() -> None:
    seeds = range(12)
    program = PRINT + f"print(*[simulate(draw(seed)).digest for seed in {seeds!r}])"
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "PYTHONHASHSEED": "4711"}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True
    )
    assert printed.stdout.split() == [simulate(draw(seed)).digest for seed in seeds]


def test_another_seed_gives_another_trace_of_the_same_work() -> None:
    program = {"n": 0, "key": "a", "ops": [["step", "one", 0.1], ["both", [["step", "two", 0.0]], [["sleep", 0.1]]]]}
    items = (Item("order", 0.0), Item("start", 0.0, (0, "plain", program, None, None, None)))
    assert len({simulate(Plan(seed, items)).digest for seed in range(20)}) == 20


def test_a_command_replays_one_seed() -> None:
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.simulation", "--replay", "3"]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout.splitlines()
    assert printed[0].startswith("seed 3: ")
    assert printed[-1] == "all promises were kept"
    assert any(line.startswith(simulate(draw(3)).digest) for line in printed)


def test_a_command_counts_many_seeds() -> None:
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "6", "--from", "10"]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
    assert printed.startswith("6 seeds, 0 failed; ")
