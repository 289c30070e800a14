"""The arithmetic behind the fake backend: how fast, how large and how right a made-up model is.

Plausible rather than true, with the features that make a deployment space interesting:

- time of a batch is affine in its size, so larger batches pay until memory ends;
- reduced precision pays on big models and costs on tiny ones;
- threads help by Amdahl's law (Amdahl 1967);
- concurrency helps by the Universal Scalability Law (Gunther 2007), so throughput has a peak;
- times are lognormal around a drift that many requests share (so they are autocorrelated), with
  rare long ones that become frequent near saturation;
- memory grows with batch size times concurrency and ends in a cliff.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.deployment import Precision
from trials.measurement import Seconds

MEMORY_BYTES = 24e9  # of a common inference card
CLASSES = 10

_CALL_S = 20e-6  # fixed cost of any request
_FIXED_SHARE = 0.4  # of one sample's time that a batch pays once
_PARALLEL_SHARE = 0.9  # Amdahl's p
_CORES = 8  # threads beyond these do not help
_CONTENTION, _COHERENCE = 0.05, 0.004  # Gunther's sigma and kappa with one thread a request
_CONTENTION_PER_THREAD = 0.08
_ACTIVATION_SHARE = 0.4  # memory of one sample in flight, as a share of the weights
_LEAST_CONFIDENCE = 0.15  # above 1 / CLASSES, so that the answer has the largest logit
_DRIFT_PERIODS_S = (0.9, 3.7, 19.0)  # no common multiple within a measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arithmetic:
    """What a precision changes.

    Attributes:
        most_speedup: Approached by big models.
        call_s: Extra fixed cost of a request (casts, scales).
        width_bytes: Of a weight or activation.
        loss: Accuracy lost by any model.
        small_loss: Lost in addition by a model without redundancy.
    """

    most_speedup: float
    call_s: float
    width_bytes: int
    loss: float
    small_loss: float


_ARITHMETIC = {
    Precision.FP32: _Arithmetic(
        most_speedup=1.0, call_s=0.0, width_bytes=4, loss=0.0, small_loss=0.0
    ),
    Precision.FP16: _Arithmetic(
        most_speedup=1.8, call_s=4e-6, width_bytes=2, loss=0.0003, small_loss=0.0005
    ),
    Precision.INT8: _Arithmetic(
        most_speedup=3.2, call_s=12e-6, width_bytes=1, loss=0.004, small_loss=0.012
    ),
}
PRECISIONS = tuple(_ARITHMETIC)
_HALF_SPEEDUP_S = 200e-6  # a sample of this length gets half of the possible speed-up
_REDUNDANT_MB = 20.0  # models much larger than this lose little


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeModel:
    """One variant at one precision.

    Attributes:
        work_s: Time of one sample alone at fp32, seconds.
        accuracy: True top-1 accuracy at fp32, in [0, 1].
        size_mb: Memory of the weights at fp32, megabytes.
        seed: Of everything random; from the variant's content.
    """

    work_s: float
    accuracy: float
    size_mb: float
    seed: int
    precision: Precision = Precision.FP32

    @property
    def weight_bytes(self) -> float:
        """Memory of the weights."""
        return self.size_mb * 1e6 * _ARITHMETIC[self.precision].width_bytes / 4

    @property
    def precise_accuracy(self) -> float:
        """True top-1 accuracy at this precision."""
        arithmetic = _ARITHMETIC[self.precision]
        redundancy = self.size_mb / (self.size_mb + _REDUNDANT_MB)
        lost = arithmetic.loss + arithmetic.small_loss * (1 - redundancy)
        return max(1 / CLASSES, self.accuracy - lost)

    def memory_bytes(self, *, batch_size: int, concurrency: int) -> float:
        """Return what serving takes: weights once, activations per sample in flight."""
        in_flight = batch_size * concurrency
        return self.weight_bytes * (1 + _ACTIVATION_SHARE * in_flight)

    def service_s(self, *, batch_size: int, threads: int) -> float:
        """Return the mean time of one request that is alone, seconds."""
        arithmetic = _ARITHMETIC[self.precision]
        gain = self.work_s / (self.work_s + _HALF_SPEEDUP_S)
        speedup = 1 + (arithmetic.most_speedup - 1) * gain
        work = self.work_s * (_FIXED_SHARE + (1 - _FIXED_SHARE) * batch_size) / speedup
        serial = 1 - _PARALLEL_SHARE + _PARALLEL_SHARE / min(threads, _CORES)
        return _CALL_S + arithmetic.call_s + work * serial

    def answers(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return logits, shape ``(samples, CLASSES)``, for samples known by id and true label.

        A sample's answer depends on its id alone. Confidences are spread so that their mean is the
        accuracy, and an answer is right with the probability that it states, so they are
        calibrated. The same draw decides at every precision, so that a lossier one fails on the
        same samples and a few more.
        """
        accuracy = self.precise_accuracy
        least = min(_LEAST_CONFIDENCE, accuracy)
        spread, verdict, slip, noise = (_uniform(ids, self.seed, stream) for stream in range(4))
        skew = (1 - least) / max(accuracy - least, 1e-9) - 1  # so that the mean is the accuracy
        confidence = np.clip(least + (1 - least) * spread**skew, 1.02 / CLASSES, 0.999)
        wrong = (labels + 1 + (slip * (CLASSES - 1)).astype(np.int64)) % CLASSES
        chosen = np.where(verdict < confidence, labels, wrong)
        share = (1 - confidence) / (CLASSES - 1)
        logits = np.repeat(np.log(share)[:, None], CLASSES, axis=1)
        # a little order among the others, too little to overtake the chosen one
        logits -= 0.01 * ((np.arange(CLASSES) + (noise * CLASSES)[:, None]) % CLASSES) / CLASSES
        logits[np.arange(len(ids)), chosen] = np.log(confidence)
        return logits.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Request times of one deployment under a closed loop.

    Attributes:
        mean_s: Mean time of a request, waiting for the others included, seconds.
        saturation: Share of the added concurrency that brings nothing, in [0, 1).
        seed: Of noise and drift; unlike for every deployment.
    """

    mean_s: float
    saturation: float
    seed: tuple[int, ...]

    def latencies(self, *, start_s: float, requests: int, lanes: int) -> Seconds:
        """Draw the times of requests that ``lanes`` workers issue from ``start_s`` on.

        Returns:
            Shape ``(lanes, requests)``, seconds; the same for the same arguments.
        """
        key = int(start_s * 1e9)
        generator = np.random.default_rng((*self.seed, key, requests, lanes))
        spread = 0.02 + 0.15 * self.saturation
        noise = np.exp(generator.normal(-(spread**2) / 2, spread, (lanes, requests)))
        is_long = generator.random((lanes, requests)) < 0.002 + 0.03 * self.saturation
        noise += is_long * generator.exponential(0.5 + 2 * self.saturation, (lanes, requests))
        times_s = start_s + self.mean_s * np.arange(requests, dtype=np.float64)
        latencies_s: Seconds = self.mean_s * noise * self._drift(times_s)
        return latencies_s

    def _drift(self, times_s: Seconds) -> Seconds:
        phases = np.random.default_rng(self.seed).uniform(0, 2 * np.pi, len(_DRIFT_PERIODS_S))
        waves = [
            np.sin(2 * np.pi * times_s / period + phase)
            for period, phase in zip(_DRIFT_PERIODS_S, phases, strict=True)
        ]
        return np.asarray(np.exp(0.01 * np.sum(waves, axis=0)), dtype=np.float64)


def timing(model: FakeModel, *, batch_size: int, concurrency: int, threads: int) -> Timing:
    """Work out the request times of a deployment by the Universal Scalability Law."""
    alone_s = model.service_s(batch_size=batch_size, threads=threads)
    contention = min(0.9, _CONTENTION + _CONTENTION_PER_THREAD * (threads - 1))
    others = concurrency - 1
    slowdown = 1 + contention * others + _COHERENCE * concurrency * others
    point = (model.seed, PRECISIONS.index(model.precision), batch_size, concurrency, threads)
    return Timing(mean_s=alone_s * slowdown, saturation=1 - 1 / slowdown, seed=point)


def _uniform(ids: NDArray[np.int64], seed: int, stream: int) -> NDArray[np.float64]:
    """Hash ids to [0, 1) (SplitMix64, Steele et al. 2014): random access, unlike a generator."""
    with np.errstate(over="ignore"):
        state = ids.astype(np.uint64) * np.uint64(4) + np.uint64(stream)
        state = (state + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2**53
