"""The suite can fail: each of these stores has one bug, and both the contracts and the machine must find it."""

import asyncio
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from stepwell.domain.errors import StepwellError
from stepwell.stores.memory.store import MemoryStore
from stepwell.testing import conformance
from stepwell.testing.conformance import Harness
from stepwell.testing.conformance.lane_schedules import play_lanes
from stepwell.testing.conformance.machine import StoreMachine
from stepwell.testing.conformance.schedules import play
from tests.conformance import bugs


class Check(NamedTuple):
    """One test of the suite."""

    contract: type
    name: str

    async def run(self, store: type[MemoryStore]) -> None:
        """Run it against that kind of store."""
        await getattr(self.contract(), self.name)(Harness(store))


FOUND_BY: dict[type[MemoryStore], Check] = {
    bugs.ChecksNoFence: Check(conformance.FenceContract, "test_an_old_fence_appends_nothing"),
    bugs.IsPutOffByTheClock: Check(conformance.SetBackContract, "test_a_backoff_is_as_long_again_and_not_longer"),
    bugs.MakesUpForGood: Check(conformance.SetBackContract, "test_nor_does_one_that_was_wrong_before"),
    bugs.IsOvertakenInLine: Check(conformance.SetBackContract, "test_runs_in_line_since_before_are_not_overtaken"),
    bugs.LooksForKeysTooEarly: Check(conformance.IdempotencyContract, "test_fifty_callers_with_one_key_make_one_run"),
    bugs.SubmitsTwice: Check(conformance.SubmissionContract, "test_a_repeated_submission_tells_how_its_run_stands_now"),
    bugs.RaisesNoAttempt: Check(
        conformance.LossContract, "test_the_run_of_a_dead_worker_is_taken_at_once_as_a_new_attempt"
    ),
    bugs.WritesTwice: Check(conformance.CommitContract, "test_the_same_number_twice_is_written_once"),
    bugs.ForgetsFacts: Check(conformance.CommitContract, "test_an_outcome_and_all_its_facts_are_written_together"),
    bugs.HoldsForEverybody: Check(conformance.WorkerContract, "test_the_answer_leaves_out_what_another_worker_took"),
    bugs.ForgetsLimits: Check(conformance.LimitContract, "test_a_run_past_its_deadline_is_ended_and_not_given"),
    bugs.IgnoresTheLimit: Check(conformance.ClaimContract, "test_a_claim_takes_no_more_than_its_limit"),
    bugs.TakesHeldRuns: Check(conformance.DueContract, "test_a_held_run_is_not_taken"),
    bugs.ShowsTenantsToEachOther: Check(conformance.ReadingContract, "test_the_run_of_another_tenant_is_not_found"),
    bugs.ListsTheOldestFirst: Check(conformance.ListingContract, "test_a_listing_begins_with_the_newest"),
    bugs.ChargesTheWallClock: Check(conformance.ChargingContract, "test_a_lease_without_a_write_is_charged_nothing"),
    bugs.MakesNoDifferenceOfSuspects: Check(
        conformance.SuspectContract, "test_a_worker_that_skips_suspects_leaves_them_and_learns_of_them"
    ),
    bugs.LosesWakeUpsAtParking: Check(
        conformance.ParkingContract, "test_what_came_between_the_last_look_and_the_parking_keeps_the_run_due"
    ),
    bugs.SleepsOverWhatIsThere: Check(
        conformance.ParkingContract,
        "test_a_run_that_opens_and_parks_in_one_write_does_not_sleep_over_what_is_there",
    ),
    bugs.TakesTheNewestSignal: Check(
        conformance.KeptSignalContract, "test_signals_of_one_name_are_taken_in_the_order_of_their_arrival"
    ),
    bugs.ReceivesAgain: Check(
        conformance.DuplicateSignalContract, "test_of_many_who_send_one_signal_one_is_told_that_it_arrived"
    ),
    bugs.LosesEarlySignals: Check(
        conformance.KeptSignalContract, "test_a_wait_takes_what_came_before_it_in_the_same_write"
    ),
    bugs.KeepsSignalsWithoutBound: Check(conformance.KeptSignalContract, "test_a_run_that_keeps_too_many_refuses_more"),
    bugs.WakesForEverySignal: Check(
        conformance.SignalContract, "test_a_signal_that_a_run_does_not_wait_for_does_not_wake_it"
    ),
    bugs.WakesAtEachOfAJoin: Check(conformance.FanInContract, "test_a_thousand_children_wake_their_parent_once"),
    bugs.TimesOutWhatWasClosed: Check(
        conformance.WaitContract, "test_a_wait_that_something_closed_before_does_not_time_out"
    ),
    bugs.LetsTheLastAnswerWin: Check(conformance.QuestionContract, "test_the_first_answer_stays"),
    bugs.LeavesWaitsOpen: Check(conformance.QuestionContract, "test_a_question_of_an_ended_run_takes_no_answer"),
    bugs.LeavesChildrenBehind: Check(conformance.CascadeContract, "test_children_in_every_status_are_cancelled"),
    bugs.CancelsTheDetached: Check(conformance.CascadeContract, "test_a_detached_child_stays"),
    bugs.TellsNoParent: Check(conformance.ChildEndContract, "test_a_parent_is_told_once"),
    bugs.WakesNoParent: Check(
        conformance.ChildEndContract, "test_a_parent_that_waits_for_its_child_is_due_when_it_ends"
    ),
    bugs.WaitsForEndedChildren: Check(
        conformance.ChildEndContract, "test_a_run_does_not_sleep_over_a_child_that_has_ended"
    ),
    bugs.MakesChildrenAgain: Check(conformance.ChildContract, "test_a_child_that_exists_is_not_made_again"),
    bugs.PausesTheRootOnly: Check(conformance.PauseTreeContract, "test_a_pause_holds_all_that_descend_from_the_run"),
    bugs.TellsNothingOfRequests: Check(
        conformance.ControlContract, "test_a_worker_is_told_which_of_its_runs_were_asked_for_what"
    ),
    bugs.DiscardsAnything: Check(conformance.DiscardContract, "test_what_is_not_dead_is_refused"),
    bugs.IgnoresExpectedVersions: Check(
        conformance.SessionValueContract, "test_of_many_who_expect_the_same_version_one_writes"
    ),
    bugs.ShowsSessionsToOtherTenants: Check(
        conformance.SessionPrivacyContract, "test_a_tenant_without_the_session_finds_nothing"
    ),
    bugs.GrantsOneTooMany: Check(conformance.LaneContract, "test_no_more_runs_are_taken_than_the_lane_has_room_for"),
    bugs.KeepsTheTicketsOfTheCancelled: Check(
        conformance.LaneReleaseContract, "test_a_run_that_is_cancelled_before_it_starts_gives_back_its_ticket"
    ),
    bugs.GivesUpThePlaceInTheSession: Check(
        conformance.SessionLaneContract, "test_a_run_that_waits_goes_on_before_the_rest_of_its_session"
    ),
    bugs.KeepsThePlaceInTheSession: Check(
        conformance.SessionLaneContract, "test_a_run_that_gives_up_its_turn_lets_the_next_one_go"
    ),
    bugs.SendsTheWokenToTheEnd: Check(
        conformance.LaneOrderContract, "test_a_run_that_is_due_again_goes_before_runs_that_never_started"
    ),
    bugs.GrantsNobodyInLine: Check(conformance.LaneOrderContract, "test_it_goes_by_the_order_of_submission"),
    bugs.EndsTheTurnWithTheParent: Check(conformance.TurnContract, "test_a_turn_is_over_when_the_last_child_has_ended"),
    bugs.EndsTheTurnWithTheFirstChild: Check(
        conformance.TurnContract, "test_a_turn_is_over_when_the_last_child_has_ended"
    ),
    bugs.KeepsTheTurnThatWasGivenUp: Check(
        conformance.GivenUpTurnContract, "test_a_turn_is_given_up_when_the_last_child_has_ended"
    ),
    bugs.GivesUpTheTurnOfItsChildren: Check(
        conformance.GivenUpTurnContract, "test_a_turn_is_given_up_when_the_last_child_has_ended"
    ),
    bugs.LetsChildrenInterrupt: Check(
        conformance.NewcomerContract, "test_a_child_that_comes_to_another_session_stands_in_line"
    ),
    bugs.NamesNoBlockages: Check(
        conformance.ReadingContract, "test_the_report_names_the_lanes_that_such_runs_keep_from_others"
    ),
    bugs.NeverBusy: Check(conformance.BusyContract, "test_of_many_newcomers_at_once_one_gets_the_session"),
}
LANE_BUGS: set[type[MemoryStore]] = {
    bugs.GrantsOneTooMany,
    bugs.KeepsTheTicketsOfTheCancelled,
    bugs.GivesUpThePlaceInTheSession,
    bugs.GrantsNobodyInLine,
    bugs.EndsTheTurnWithTheParent,
    bugs.EndsTheTurnWithTheFirstChild,
    bugs.KeepsTheTurnThatWasGivenUp,
    bugs.GivesUpTheTurnOfItsChildren,
}
"""Bugs that the schedules for lanes must find."""

WAIT_BUGS: set[type[MemoryStore]] = {
    bugs.LosesWakeUpsAtParking,
    bugs.TakesTheNewestSignal,
    bugs.ReceivesAgain,
    bugs.LosesEarlySignals,
    bugs.WakesForEverySignal,
    bugs.WakesAtEachOfAJoin,
    bugs.TimesOutWhatWasClosed,
    bugs.LetsTheLastAnswerWin,
}
"""Bugs that the schedules for arrivals must find."""

NOT_TRIED_BY_THE_MACHINE = LANE_BUGS | {
    bugs.ShowsTenantsToEachOther,
    bugs.LooksForKeysTooEarly,
    bugs.SubmitsTwice,
    bugs.MakesNoDifferenceOfSuspects,
    bugs.KeepsSignalsWithoutBound,
    bugs.IgnoresExpectedVersions,
    bugs.ShowsSessionsToOtherTenants,
    bugs.SendsTheWokenToTheEnd,
    bugs.KeepsThePlaceInTheSession,
    bugs.LetsChildrenInterrupt,
    bugs.NamesNoBlockages,
    bugs.IsOvertakenInLine,
    bugs.NeverBusy,
}
"""Bugs that show between tenants or callers, in great numbers, or in sessions and lanes: the machine has none."""

SEARCH = settings(
    deadline=None,
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


def named(bug: type[MemoryStore]) -> str:
    return bug.__name__


def in_order(found: set[type[MemoryStore]]) -> list[type[MemoryStore]]:
    return sorted(found, key=named)


@pytest.mark.parametrize("bug", FOUND_BY, ids=named)
async def test_a_contract_finds_the_bug(bug: type[MemoryStore]) -> None:
    check = FOUND_BY[bug]
    await check.run(MemoryStore)
    with pytest.raises((AssertionError, ValueError, StepwellError, pytest.fail.Exception)):
        await check.run(bug)


@pytest.mark.parametrize("bug", in_order(FOUND_BY.keys() - NOT_TRIED_BY_THE_MACHINE), ids=named)
def test_the_machine_finds_the_bug(bug: type[MemoryStore]) -> None:
    machine = type("Machine", (StoreMachine,), {"make_harness": staticmethod(lambda _: Harness(bug))})
    search = settings(SEARCH, max_examples=400, stateful_step_count=40)
    with pytest.raises((AssertionError, StepwellError)):
        run_state_machine_as_test(machine, settings=search)


@pytest.mark.parametrize("bug", in_order(WAIT_BUGS), ids=named)
def test_the_schedules_for_arrivals_find_the_bug(bug: type[MemoryStore]) -> None:
    @settings(SEARCH, max_examples=2_000)
    @given(schedule=st.binary(min_size=6, max_size=16))
    def plays(schedule: bytes) -> None:
        harness = Harness(bug)
        asyncio.run(played(harness, schedule))

    async def played(harness: Harness, schedule: bytes) -> None:
        await play(harness, await harness.views(), schedule)

    with pytest.raises((AssertionError, StepwellError)):
        plays()


@pytest.mark.parametrize("bug", in_order(LANE_BUGS), ids=named)
def test_the_schedules_for_lanes_find_the_bug(bug: type[MemoryStore]) -> None:
    @settings(SEARCH, max_examples=4_000)
    @given(schedule=st.binary(min_size=20, max_size=60))
    def plays(schedule: bytes) -> None:
        harness = Harness(bug)
        asyncio.run(played(harness, schedule))

    async def played(harness: Harness, schedule: bytes) -> None:
        await play_lanes(harness, await harness.views(), "", schedule)

    with pytest.raises((AssertionError, StepwellError)):
        plays()
