"""What counts as somebody else in the way."""

import os
from dataclasses import replace

import pytest

from trials.measuring.contention import Reading, read, taken_share, was_contended

BEFORE = Reading(
    wall_s=0.0, own_s=0.0, busy_s=0.0, queued_s=0.0, stalled_s=0.0, throttled=7, cpus=2
)
QUIET = replace(BEFORE, wall_s=0.1, own_s=0.1, busy_s=0.1, queued_s=0.0005)


def test_quiet_machine_is_not_contended() -> None:
    assert not was_contended(BEFORE, QUIET)


@pytest.mark.parametrize(
    ("after", "taken"),
    [
        (QUIET, 0.0),
        (replace(QUIET, busy_s=0.15), 0.0005 / 0.1005),  # they ran where nobody waited
        (replace(QUIET, queued_s=0.3), 0.0),  # it waited for itself
        (replace(QUIET, busy_s=0.4, queued_s=0.2), 0.2 / 0.3),
        (replace(QUIET, busy_s=0.2, queued_s=0.5), 0.1 / 0.2),
        (replace(QUIET, queued_s=None, busy_s=0.15), 0.05 / 0.15),
        (replace(QUIET, busy_s=None, queued_s=0.1), 0.1 / 0.2),
        (replace(QUIET, queued_s=90.0, busy_s=90.0), 0.99),
        (replace(QUIET, throttled=8), 0.99),
        (replace(QUIET, busy_s=None, queued_s=None), 0.0),
        (BEFORE, 0.0),
    ],
)
def test_others_took_what_they_used_and_we_waited_for(after: Reading, taken: float) -> None:
    assert taken_share(BEFORE, after) == pytest.approx(taken)


def test_foreign_work_on_our_cpus_is_contention() -> None:
    assert was_contended(BEFORE, replace(QUIET, busy_s=0.15))


def test_ticks_that_are_one_off_on_each_cpu_are_none() -> None:
    """The kernel counts in ticks of 10 ms, and 20 ms are 10 % of a block of 0.1 s on two CPUs."""
    assert not was_contended(BEFORE, replace(QUIET, busy_s=QUIET.own_s + 0.02))


def test_threads_that_queue_although_cpus_are_free_are_contention() -> None:
    assert was_contended(BEFORE, replace(QUIET, queued_s=0.005))


def test_process_that_fills_its_cpus_queues_behind_itself() -> None:
    after = replace(QUIET, own_s=0.2, busy_s=0.2, queued_s=0.1)

    assert not was_contended(BEFORE, after)


def test_pressure_counts_only_where_the_run_queue_is_not_told() -> None:
    pressed = replace(QUIET, stalled_s=0.05)

    assert not was_contended(BEFORE, pressed)
    assert was_contended(replace(BEFORE, queued_s=None), replace(pressed, queued_s=None))


def test_processor_that_was_too_hot_is_contention() -> None:
    assert was_contended(BEFORE, replace(QUIET, throttled=8))


def test_machine_that_tells_nothing_is_not_called_contended() -> None:
    after = replace(QUIET, busy_s=None, queued_s=None, stalled_s=None)

    assert not was_contended(BEFORE, after)


def test_no_time_between_readings_is_no_contention() -> None:
    assert not was_contended(BEFORE, replace(BEFORE, busy_s=1.0))


def test_real_clocks_never_run_backwards() -> None:
    before = read()
    after = read()

    assert after.wall_s >= before.wall_s
    assert after.own_s >= before.own_s
    assert after.throttled >= before.throttled >= 0
    assert 1 <= after.cpus <= (os.cpu_count() or 1)


def test_thread_that_ended_between_readings_takes_no_time_back() -> None:
    before = replace(BEFORE, queued_s=5.0)

    assert not was_contended(before, replace(QUIET, queued_s=1.0))
