"""What counts as somebody else in the way."""

import os
import threading
from dataclasses import replace

from trials.measuring.contention import Reading, read, was_contended

BEFORE = Reading(wall_s=0.0, own_s=0.0, busy_s=0.0, queued_s=0.0, workers=1, cpus=2)
QUIET = replace(BEFORE, wall_s=10.0, own_s=10.0, busy_s=10.0, queued_s=0.01)


def test_quiet_machine_is_not_contended() -> None:
    assert not was_contended(BEFORE, QUIET)


def test_foreign_work_on_our_cpus_is_contention() -> None:
    after = replace(QUIET, busy_s=QUIET.own_s + 1.5)

    assert was_contended(BEFORE, after)


def test_workers_that_queue_although_cpus_are_free_are_contention() -> None:
    after = replace(QUIET, queued_s=0.5)

    assert was_contended(BEFORE, after)


def test_process_that_fills_its_cpus_queues_behind_itself() -> None:
    after = replace(QUIET, own_s=20.0, busy_s=20.0, queued_s=5.0, workers=4)

    assert not was_contended(BEFORE, after)


def test_machine_that_tells_nothing_is_not_called_contended() -> None:
    after = replace(QUIET, busy_s=None, queued_s=None)

    assert not was_contended(BEFORE, after)


def test_no_time_between_readings_is_no_contention() -> None:
    assert not was_contended(BEFORE, replace(BEFORE, busy_s=1.0))


def test_real_clocks_never_run_backwards() -> None:
    threads = [threading.get_native_id()]

    before = read(threads)
    after = read(threads)

    assert after.wall_s >= before.wall_s
    assert after.own_s >= before.own_s
    assert 1 <= after.cpus <= (os.cpu_count() or 1)


def test_thread_that_is_gone_gives_no_queue_time() -> None:
    no_thread = 0  # the kernel's own, listed in no process

    assert read([no_thread]).queued_s is None
