"""Plans that once broke a promise of the engine, made small by the simulation. They keep it now."""

from tests.simulation.plans import Item, Plan, When
from tests.simulation.world import simulate


def program(*operations: list[object]) -> dict[str, object]:
    """A program of these operations."""
    return {"n": 0, "key": "a", "ops": list(operations)}


def test_a_worker_that_was_held_up_while_it_registered_does_not_trust_its_lease() -> None:
    stall = Item("stall", 0.08, (0, When(False, 1), 3.4))
    start = Item("start", 3.4, (0, "plain", program(["step", "one", 0.0]), None, None, None))
    for seed in range(60):
        result = simulate(Plan(seed, (Item("order", 0.0), stall, start), workers=2, delay=0.1))
        assert result.failure is None, result.failure


def test_a_worker_that_lost_a_cancelled_run_does_not_clean_up_after_it() -> None:
    items = (
        Item("start", 0.0, (0, "cleaning", program(["keyed", "one", 1.0]), None, None, 0)),
        Item("cancel", 0.4, (0,)),
        Item("stop", 0.5, (0, When(False, 3), 4.5)),
    )
    for seed in range(20):
        result = simulate(Plan(seed, items, workers=2, delay=0.05))
        assert result.failure is None, result.failure


def test_a_retry_of_a_run_that_was_cleaned_up_after_takes_nothing_of_that_over() -> None:
    items = (
        Item("start", 0.0, (0, "cleaning", program(["step", "one", 1.0]), None, None, 0)),
        Item("cancel", 0.3, (0,)),
        Item("retry", 1.5, (0,)),
    )
    for seed in range(20):
        result = simulate(Plan(seed, items, workers=1, delay=0.0))
        assert result.failure is None, result.failure


def test_a_store_that_cannot_be_read_when_a_wait_has_ended_fails_no_run() -> None:
    items = (
        Item("start", 0.0, (0, "plain", program(["wait", "go", 0.1]), None, None, 0)),
        Item("store", 0.44, (0, "journal", "before", 0.5)),
    )
    for seed in range(20):
        result = simulate(Plan(seed, items, workers=1, delay=0.1))
        assert result.failure is None, result.failure
