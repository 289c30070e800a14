"""When an engine is steady."""

import numpy as np
import pytest

from trials.measuring.steadiness import truncate_warmup


def test_transient_is_cut_where_it_ends() -> None:
    generator = np.random.default_rng(6)
    latencies = 1 + 0.05 * generator.normal(size=400)
    latencies[:60] += np.linspace(3, 1, 60)

    assert 55 <= truncate_warmup(latencies) <= 75


def test_drift_without_end_cuts_half_or_more() -> None:
    latencies = np.linspace(1.0, 2.0, 500)

    assert 2 * truncate_warmup(latencies) >= latencies.size


@pytest.mark.parametrize("count", [0, 1, 19])
def test_a_few_requests_cannot_show_a_transient(count: int) -> None:
    assert truncate_warmup(np.linspace(9.0, 1.0, count)) == 0


def test_steady_requests_are_all_kept() -> None:
    assert truncate_warmup(np.full(500, 0.001)) == 0
