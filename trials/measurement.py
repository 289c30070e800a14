"""What a trial finds out: numbers with intervals, and the raw samples behind them."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Seconds: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        low: Lower limit; None where the data cannot give one.
        high: Upper limit; None where the data cannot give one ("unbounded").
    """

    value: float
    low: float | None
    high: float | None

    def scaled(self, factor: float) -> "Estimate":
        """Change the unit by a positive ``factor``."""
        return Estimate(
            value=self.value * factor,
            low=None if self.low is None else self.low * factor,
            high=None if self.high is None else self.high * factor,
        )


def exact(value: float) -> Estimate:
    """Make an estimate of something that is counted, not sampled."""
    return Estimate(value=value, low=value, high=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """When the requests of a block of open-loop load came, were sent and were answered.

    Each of shape ``(requests,)``, in the order of the block's latencies, seconds on the load
    generator's clock. Waiting took ``start_s - due_s``, service ``end_s - start_s``, and the
    latency is their sum.

    Attributes:
        batch: Requests in the batch that each was served in, the filling of a padded one not
            counted; shape ``(requests,)``.
    """

    due_s: Seconds
    start_s: Seconds
    end_s: Seconds
    batch: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockOnGpu:
    """What a GPU did while a block was measured, read right before and right after it.

    Of an open loop a stretch of blocks is read, and told by its first block.

    Attributes:
        begin_s: Of the reading of energy before it, on the clock of the source, seconds; likewise
            ``end_s`` of that after it, which is later.
        begin_j: What the whole GPU had used then, joules; None where it is not told.
        load_s: How long the load lasted that answered ``samples``, seconds.
        samples: That were answered under it.
        sm_mhz: Clock of the multiprocessors before it and after it; likewise ``memory_mhz``;
            None where it is not told.
        temperature_c: The higher of both readings, degrees Celsius.
        memory_bytes: The larger of both readings, of everybody.
        reasons: What held the clocks back, bits of ``machine.gpu_source.Reason``.
        others: Processes of others that held a context on it, busy or not.
        busy_others: Those of them that it worked for, as far as that is told.
        reading_s: How long both readings took, outside the block, seconds; 0 if computed.
    """

    begin_s: float
    end_s: float
    begin_j: float | None
    end_j: float | None
    load_s: float
    samples: int
    sm_mhz: tuple[int | None, int | None]
    memory_mhz: tuple[int | None, int | None]
    temperature_c: int | None
    memory_bytes: int | None
    reasons: int
    others: int
    busy_others: int
    reading_s: float

    @property
    def wall_s(self) -> float:
        """Time between the readings of energy: a little more than the load lasted, seconds."""
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTimes:
    """Where the time of requests to a device went, apart.

    Each of shape ``(requests,)``, in the order of the block's latencies, seconds.

    Attributes:
        gpu_s: For how long the device ran the request, copies not included, on its own clock.
        enqueue_s: For how long the host was busy asking for it, copies included.
        wall_s: From the begin of asking until its end was seen, waiting for the request before it
            included.
    """

    gpu_s: Seconds
    enqueue_s: Seconds
    wall_s: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One stretch of load, the atom of all statistics.

    Attributes:
        start_s: Begin of the block on the load generator's clock, seconds.
        window_s: Mean over the workers of the time from their begin to their own last end, > 0;
            under open-loop load the time in which the block's requests were due.
        latencies_s: Shape ``(requests,)``; one per completed request, in order of completion.
        batch_size: Samples per request; 1 under open-loop load.
        stamps: Under open-loop load alone.
        gpu: Where a GPU ran the requests and could be read.
        device: Under closed-loop load of a device that requests wait in line for; latencies are
            then from when the one before in line was answered, or from sending if that was later.
    """

    start_s: float
    window_s: float
    latencies_s: Seconds
    batch_size: int
    stamps: Stamps | None = None
    gpu: BlockOnGpu | None = None
    device: DeviceTimes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Latency per request (seconds) and throughput (samples/s) under the deployment's load.

    Attributes:
        target_met: Whether the intervals became as narrow as was asked for.
        method: Version of the formulas (``measuring.spread``); records that name none are of 1.
    """

    latency_mean_s: Estimate
    latency_p50_s: Estimate
    latency_p90_s: Estimate
    latency_p99_s: Estimate
    latency_p999_s: Estimate
    throughput_sps: Estimate
    requests: int
    blocks: int
    target_met: bool
    method: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Queueing:
    """Where the latency of an open loop went, and how punctual its generator was.

    Attributes:
        wait_mean_s: From being due to being sent; likewise ``wait_p99_s``.
        service_mean_s: From being sent to being answered; likewise ``service_p99_s``.
        batch_mean: Mean size of a batch, without the filling of a padded one.
        padded_share: Share of the engine's samples that were filling, in [0, 1).
        late_p50_s: By how much a batch was sent after the moment that the batcher chose,
            likewise ``late_p99_s``; 0 where time is computed.
    """

    wait_mean_s: float
    wait_p99_s: float
    service_mean_s: float
    service_p99_s: float
    batch_mean: float
    padded_share: float
    late_p50_s: float
    late_p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTiming:
    """Who drove a device, and where the time of its requests went (``DeviceTimes``), in short.

    Attributes:
        depth: Requests in flight in each execution context: one that runs, others in line.
        threads: Of the host, that drove the contexts.
        enqueue_share: Share of its time that each thread was busy asking for requests, >= 0.
        gpu_mean_s: Mean of the device's own times; likewise ``gpu_p50_s``, ``gpu_p99_s``.
        enqueue_p50_s: Median of the times to ask; likewise ``enqueue_p99_s``.
        wall_p50_s: Median of the times from asking to the end; likewise ``wall_p99_s``.
    """

    depth: int
    threads: int
    enqueue_share: float
    gpu_mean_s: float
    gpu_p50_s: float
    gpu_p99_s: float
    enqueue_p50_s: float
    enqueue_p99_s: float
    wall_p50_s: float
    wall_p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """How requests went to a device.

    Attributes:
        transfers: Whether copies between host and device are part of a request: ``include``,
            ``exclude``.
        uses_graphs: A request is one launch of a CUDA graph.
        timing: Of engines whose requests are sent and waited for apart, under a closed loop.
    """

    transfers: str
    uses_graphs: bool
    timing: DeviceTiming | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """How quiet the machine was while a speed was measured.

    Attributes:
        contended_blocks: Blocks that count although others took the processor meanwhile.
        repeated_blocks: Blocks that do not count for that reason, and were measured again.
        cpu_s_per_request: CPU time of the process for each request that counts, seconds, of all
            its threads, median over the blocks. It holds no waiting for a CPU, but the requests
            that workers send while they wait for each other, and our own work between blocks: what
            a request needs is less. None where no time was spent, or a device was waited for.
    """

    contended_blocks: int
    repeated_blocks: int
    cpu_s_per_request: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """What a GPU did while a speed was measured; None is what it does not tell.

    Attributes:
        uuid: Of the GPU, or of the part of one.
        is_mig: Whether it is a part of a card, or a card that is cut into parts.
        update_s: How often its energy counter moves, seconds; 0 where it is exact.
        energy_per_sample_j: Of the whole GPU, idle power included, joules.
        power_w: Mean under load.
        sm_mhz: Lowest and highest clock of the multiprocessors; likewise ``memory_mhz``.
        temperature_c: Highest.
        memory_bytes: Most, of everybody.
        reasons: Words for what held the clocks back in a block that counts.
        throttled_blocks: Blocks that count although heat, a brake or the hardware slowed the GPU.
        capped_blocks: Blocks in which its own power limit did, which is no disturbance.
        shared_blocks: Blocks that count although processes of others were on it.
        reading_s: How long it took to read the meters around a block, median, seconds.
    """

    uuid: str
    name: str
    is_mig: bool
    update_s: float
    energy_per_sample_j: Estimate | None
    power_w: float | None
    sm_mhz: tuple[int, int] | None
    memory_mhz: tuple[int, int] | None
    temperature_c: int | None
    memory_bytes: int | None
    reasons: tuple[str, ...]
    throttled_blocks: int
    capped_blocks: int
    shared_blocks: int
    reading_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Confidence against accuracy for one equal-mass bin of samples."""

    confidence: float
    accuracy: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How far stated confidences can be believed.

    Attributes:
        brier: Mean squared distance of the class probabilities from the truth, in [0, 2].
        log_loss: Mean negative log probability of the true class, nats.
        ece: Expected calibration error over equal-mass bins, in [0, 1].
        ece_null: The ECE that a perfectly calibrated model would show on as many samples.
    """

    brier: Estimate
    log_loss: Estimate
    ece: float
    ece_null: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortScore:
    """The main score on one cohort."""

    cohort: str
    samples: int
    score: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleScores:
    """The main score of each sample of a split; ``scoring.sample_scores`` packs and unpacks it.

    Attributes:
        kind: How they are packed: a ``bits`` each where all are hits or misses, or ``float32``.
        text: The scores, compressed and written in base 85.
    """

    samples: int
    kind: Literal["bits", "float32"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How right an engine's answers are, on one split.

    Attributes:
        split: ``search`` or ``report``.
        split_digest: Digest of the samples and labels that were scored.
        scores: (metric name, estimate): ``accuracy``, ``accuracy_top5``, ``macro_f1``, ``score``;
            the first is the main one.
        per_sample: The main score of each sample; None where it was not kept.
    """

    split: str
    split_digest: str
    samples: int
    scores: tuple[tuple[str, Estimate], ...]
    cohorts: tuple[CohortScore, ...] = ()
    calibration: Calibration | None = None
    per_sample: SampleScores | None = None

    def metrics(self) -> dict[str, Estimate]:
        """Return every metric that rests on the answers, the main one first."""
        found = dict(self.scores)
        if self.calibration is not None:
            found["brier"] = self.calibration.brier
            found["log_loss"] = self.calibration.log_loss
            found["ece"] = exact(self.calibration.ece)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds that a trial spent; 0.0 for a step that the store saved."""

    convert_s: float
    build_s: float
    score_s: float
    load_s: float
    cold_call_s: float
    measure_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """Which engine was measured.

    Attributes:
        variant_digest: SHA-256 of the variant's ONNX content.
        model_digest: SHA-256 of the converted ONNX file.
        engine_digest: SHA-256 of the built engine.
        engine_key: Key of the engine in the store.
        size_bytes: Size of the built engine.
    """

    variant_digest: str
    model_digest: str
    engine_digest: str
    engine_key: str
    size_bytes: int
