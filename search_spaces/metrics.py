"""The metrics that a space may optimize or bound, with their units and directions.

Names carry their unit. Everything here is what people see (milliseconds, samples/s); seconds and
bytes stay inside ``trials``.
"""

from dataclasses import dataclass
from enum import StrEnum


class Direction(StrEnum):
    """Which way is better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Scale(StrEnum):
    """How a sampler and a plot see the metric: ratios (log) or differences (linear)."""

    LOG = "log"
    LINEAR = "linear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measurable quantity.

    Attributes:
        name: Key in space files, tables and MLflow.
        label: What plots and tables call it, with its unit.
        direction: Which way is better.
        scale: Ratio or difference scale.
        worst: What a sampler is told of a deployment that cannot run, as long as nothing was
            measured; in the metric's unit and never shown to people.
    """

    name: str
    label: str
    direction: Direction
    scale: Scale
    worst: float


def _cost(name: str, label: str, worst: float) -> Metric:
    return Metric(
        name=name, label=label, direction=Direction.MINIMIZE, scale=Scale.LOG, worst=worst
    )


def _score(name: str, label: str) -> Metric:
    return Metric(
        name=name, label=label, direction=Direction.MAXIMIZE, scale=Scale.LINEAR, worst=0.0
    )


def _loss(name: str, label: str, worst: float) -> Metric:
    return Metric(
        name=name, label=label, direction=Direction.MINIMIZE, scale=Scale.LINEAR, worst=worst
    )


METRICS = {
    metric.name: metric
    for metric in (
        _cost("latency_mean_ms", "mean latency [ms]", 1e4),
        _cost("latency_p50_ms", "p50 latency [ms]", 1e4),
        _cost("latency_p90_ms", "p90 latency [ms]", 1e4),
        _cost("latency_p99_ms", "p99 latency [ms]", 1e4),
        _cost("latency_p999_ms", "p99.9 latency [ms]", 1e4),
        Metric(
            name="throughput_sps",
            label="throughput [samples/s]",
            direction=Direction.MAXIMIZE,
            scale=Scale.LOG,
            worst=1.0,
        ),
        _score("accuracy", "top-1 accuracy"),
        _score("accuracy_top5", "top-5 accuracy"),
        _score("macro_f1", "macro F1"),
        _score("score", "mean score of the user's metric"),
        _loss("brier", "Brier score", 2.0),
        _loss("log_loss", "log loss [nats]", 10.0),
        _loss("ece", "expected calibration error", 1.0),
        _cost("peak_memory_mb", "peak memory [MB]", 1e6),
        _cost("energy_per_sample_mj", "energy per sample [mJ]", 1e6),
        _cost("engine_size_mb", "engine size [MB]", 1e6),
        _cost("load_ms", "engine load time [ms]", 1e6),
        _cost("cold_call_ms", "first call [ms]", 1e6),
    )
}
