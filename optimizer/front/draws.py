"""Measurements drawn again from what was measured, to see how far chance alone would move them.

Blocks of load are the atoms of speed, drawn in runs as long as they remember each other; all
metrics of a deployment come from the same drawn blocks, because they move together. Samples are
the atoms of scores, and all engines get the same drawn samples, because they were scored on the
same ones. Where raw data are missing (blocks on another machine, scores without samples), draws
come from the interval, normal on the metric's own scale.

Everything is seeded by what is drawn from, so nothing depends on the order of trials.

References:
    Politis, D. and Romano, J. (1994), The stationary bootstrap. JASA 89, 1303-1313.
    Chamandy, N. et al. (2012), Estimating uncertainty for massive data streams. Google. Sample
        weights that are Poisson instead of multinomial.
"""

import math
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from optimizer.study.records import TrialRecord
from search_spaces.metrics import METRICS, Scale
from trials.measurement import Block, Estimate, Quality
from trials.measuring.spread import autocorrelation_time
from trials.measuring.statistics import MIN_BLOCKS
from trials.outcome import Completed
from trials.scoring.sample_scores import unpacked

Draws: TypeAlias = NDArray[np.float64]
"""A metric in people's units, shape ``(draws,)``."""

BlocksOf: TypeAlias = Callable[[str], tuple[Block, ...] | None]
"""Gives the raw blocks of a trial by its uid; None where there are none."""

_LEVELS = {
    "latency_p50_ms": 0.5,
    "latency_p90_ms": 0.9,
    "latency_p99_ms": 0.99,
    "latency_p999_ms": 0.999,
}
_SPEEDS = (*_LEVELS, "latency_mean_ms", "throughput_sps")
_CHUNK = 4_000_000  # random numbers drawn at once
_MS_PER_S = 1e3
_WIDTH = 2 * 1.959963984540054  # of a 95 % interval, in standard deviations


class Drawer:
    """Draws the metrics of measured trials again, the same ones for the same trials.

    Args:
        blocks_of: Where raw blocks are to be had.
        draws: How often everything is drawn, >= 1.
    """

    def __init__(self, blocks_of: BlocksOf, *, draws: int) -> None:
        self._blocks_of = blocks_of
        self._count = draws
        self._scored: dict[str, Draws] = {}

    def drawn(self, record: TrialRecord, names: Sequence[str]) -> dict[str, Draws]:
        """Draw metrics of one completed trial, together."""
        outcome = record.outcome
        assert isinstance(outcome, Completed)
        found = {}
        speeds = [name for name in names if name in _SPEEDS]
        if outcome.deployment.load is not None:  # its rate is given, whatever its blocks held
            speeds = [name for name in speeds if name != "throughput_sps"]
        blocks = self._blocks_of(record.uid) if speeds else None
        if blocks is not None and len(blocks) >= MIN_BLOCKS:
            found = _speeds(blocks, speeds, self._weights(record.uid, blocks))
        for name in names:
            if name not in found:
                found[name] = self._without_blocks(record.uid, name, outcome)
        return found

    def _without_blocks(self, uid: str, name: str, outcome: Completed) -> Draws:
        estimate, quality = outcome.metric(name), outcome.quality
        if quality is None or name not in quality.metrics():
            return self._normal(f"{uid} {name}", estimate, METRICS[name].scale)
        key = outcome.engine.engine_key
        if name == quality.scores[0][0] and quality.per_sample is not None:
            if key not in self._scored:
                self._scored[key] = self._resampled(quality)
            return self._scored[key]
        return self._normal(f"{key} {name}", estimate, METRICS[name].scale)

    def _weights(self, uid: str, blocks: Sequence[Block]) -> Draws:
        """Say how often each block is drawn; shape ``(draws, blocks)``.

        Runs are on average as long as latencies or rates of successive blocks are alike.
        """
        rates = np.array([np.log(block.latencies_s.size / block.window_s) for block in blocks])
        levels = np.array([np.log(np.mean(block.latencies_s)) for block in blocks])
        length = max(autocorrelation_time(rates), autocorrelation_time(levels))
        random = _generator(uid)
        size = (self._count, len(blocks))
        fresh = random.random(size) < 1 / length
        fresh[:, 0] = True
        starts = random.integers(len(blocks), size=size)
        # each place goes on from the last fresh start before it, around the end
        at = np.where(fresh, np.arange(len(blocks)), 0)
        last = np.maximum.accumulate(at, axis=1)
        drawn = np.take_along_axis(starts, last, axis=1) + np.arange(len(blocks)) - last
        rows = np.repeat(np.arange(self._count), len(blocks))
        weights = np.zeros(size)
        np.add.at(weights, (rows, (drawn % len(blocks)).ravel()), 1.0)
        return weights

    def _resampled(self, quality: Quality) -> Draws:
        assert quality.per_sample is not None
        scores = unpacked(quality.per_sample)
        random = _generator(quality.split_digest)  # the same samples for every engine
        rows = max(1, _CHUNK // scores.size)
        parts = []
        for first in range(0, self._count, rows):
            size = (min(rows, self._count - first), scores.size)
            weights = random.poisson(1.0, size)
            parts.append(weights @ scores / np.maximum(weights.sum(axis=1), 1))
        drawn: Draws = np.concatenate(parts)
        return drawn

    def _normal(self, seed: str, estimate: Estimate, scale: Scale) -> Draws:
        """Draw from an interval; an unknown limit is taken to be as far away as the other one."""
        ends = [end for end in (estimate.low, estimate.high) if end is not None]
        is_log = scale is Scale.LOG and estimate.value > 0 and all(end > 0 for end in ends)
        value, *known = (math.log(one) if is_log else one for one in (estimate.value, *ends))
        width = 2 * max((abs(end - value) for end in known), default=0.0)
        if len(ends) == 2:  # noqa: PLR2004 - both ends
            width = known[1] - known[0]
        drawn = value + _generator(seed).standard_normal(self._count) * (width / _WIDTH)
        return np.exp(drawn) if is_log else drawn


def _speeds(blocks: Sequence[Block], names: Sequence[str], weights: Draws) -> dict[str, Draws]:
    """Compute speeds of drawn blocks from how often each was drawn."""
    requests = np.array([block.latencies_s.size for block in blocks], dtype=float)
    totals_s = np.array([block.latencies_s.sum() for block in blocks])
    windows_s = np.array([block.window_s for block in blocks])
    samples = requests * [block.batch_size for block in blocks]
    found = {}
    pooled_s = np.sort(np.concatenate([block.latencies_s for block in blocks]))
    for name in names:
        if name == "throughput_sps":
            found[name] = weights @ samples / (weights @ windows_s)
        elif name == "latency_mean_ms":
            found[name] = weights @ totals_s / (weights @ requests) * _MS_PER_S
        else:
            found[name] = _MS_PER_S * _quantiles(blocks, pooled_s, _LEVELS[name], weights)
    return found


def _quantiles(
    blocks: Sequence[Block], pooled_s: Draws, level: float, weights: Draws
) -> NDArray[np.float64]:
    """Return a quantile of each draw, in seconds; shape ``(draws,)``.

    All draws are bisected at a time for the least sample that enough drawn ones do not exceed. A
    draw without a slow block may have its quantile far below those of all samples together.
    """
    ordered = [np.sort(block.latencies_s) for block in blocks]
    requests = np.array([one.size for one in ordered])
    wanted = np.ceil(level * (weights @ requests) - 1e-9)
    low = np.zeros(wanted.size, dtype=np.intp)
    high = np.full(wanted.size, pooled_s.size - 1)
    while (low < high).any():
        middle = (low + high) // 2
        below = [np.searchsorted(one, pooled_s[middle], side="right") for one in ordered]
        reached = np.einsum("db,bd->d", weights, np.array(below)) >= wanted
        high = np.where(reached, middle, high)
        low = np.where(reached, low, middle + 1)
    found: NDArray[np.float64] = pooled_s[low]
    return found


def _generator(seed: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(sha256(seed.encode()).digest()[:8]))
