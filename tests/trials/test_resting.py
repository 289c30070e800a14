"""Waiting until the threads of an engine rest."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from real_spaces import FEATURES, point, write_model

from trials.backends.catalog import backend_named
from trials.measuring.resting import wait_until_resting

pytestmark = pytest.mark.quiet


def spin_until(ends: threading.Event) -> None:
    while not ends.is_set():
        pass


def test_process_whose_threads_sleep_rests_at_once() -> None:
    assert wait_until_resting(5.0)


def test_thread_that_never_rests_is_not_waited_for_for_ever() -> None:
    ends = threading.Event()
    spinning = threading.Thread(target=spin_until, args=(ends,))
    spinning.start()
    try:
        is_resting = wait_until_resting(0.05)
    finally:
        ends.set()
        spinning.join()

    assert not is_resting
    assert wait_until_resting(5.0)


def test_threads_of_an_engine_have_no_more_to_do_once_they_rest(tmp_path: Path) -> None:
    """ONNX Runtime's pool spins after the last request, which costs its neighbour CPU time."""
    model = write_model(tmp_path / "net.onnx", width=4096)
    engine = backend_named("ort").load(model, point(threads=2))
    batch = {"samples": np.zeros((256, FEATURES), np.float32)}
    for _ in range(20):
        engine.infer(batch)

    is_resting = wait_until_resting(5.0)
    before_s = time.process_time()
    time.sleep(0.05)
    spent_s = time.process_time() - before_s
    engine.close()

    assert is_resting
    assert spent_s < 0.005
