"""Measure what the worker process costs a trial: the same null trial inside it and without it.

The trial returns at once, with as many raw latencies as a real one of ten seconds at 10,000
requests/s, so that the difference is the price of isolation alone. Both ways are timed
alternately in the same run, because a busy machine is busy for both. A phase is timed alone as
well, with nothing but its message and its answer, and with the gate that a search shuts and opens
around what is measured::

    python scripts/bench_isolation.py [--trials 200] [--json]
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from optimizer.tracking.gate import Gate
from search_spaces.deployment import Deployment, Precision
from search_spaces.space import MeasuringPlan, Preprocessing, SearchSpace, Task, TaskKind
from trials.isolation.worker import Worker
from trials.machine.environment import environment
from trials.measurement import Block, Costs, EngineRecord, Speed, exact
from trials.outcome import Completed, Environment, Failed, Outcome

_LIMIT_MS = 20.0  # what isolation may cost a trial
_PHASE_LIMIT_MS = 0.3
_BLOCKS = 20
_REQUESTS = 5_000
_STARTS = 5
_MANY_PHASES = 1_000
_FEW = 5
_PHASES = ("prepare", "load", "measure", "score", "memory")
_MS_PER_S = 1e3


class PhasesSession:
    """A session whose trials are phases and nothing else."""

    def run(self, deployment: Deployment, on_phase: Callable[[str], None]) -> Outcome:
        """Pass through very many phases."""
        for _ in range(_MANY_PHASES):
            on_phase("measure")
        return Failed(
            deployment=deployment,
            kind="fault",
            reason="only phases",
            environment=Environment(facts=()),
        )


class NullSession:
    """A session whose trials take no time but return as much as real ones."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._blocks = tuple(
            Block(
                start_s=float(block),
                window_s=0.5,
                latencies_s=generator.exponential(1e-4, _REQUESTS),
                batch_size=1,
            )
            for block in range(_BLOCKS)
        )

    def run(self, deployment: Deployment, on_phase: Callable[[str], None]) -> Outcome:
        """Pass through every phase and return a full outcome."""
        for phase in _PHASES:
            on_phase(phase)
        one = exact(1.0)
        speed = Speed(
            latency_mean_s=one,
            latency_p50_s=one,
            latency_p90_s=one,
            latency_p99_s=one,
            latency_p999_s=one,
            throughput_sps=one,
            requests=_BLOCKS * _REQUESTS,
            blocks=_BLOCKS,
            target_met=True,
        )
        return Completed(
            deployment=deployment,
            engine=_RECORD,
            speed=speed,
            quality=None,
            peak_memory_bytes=1,
            costs=_COSTS,
            environment=environment(),
            blocks=self._blocks,
        )

    def describe(self) -> None:
        """Do nothing: asking is what starts the process."""


_RECORD = EngineRecord(
    variant_digest="0", model_digest="0", engine_digest="0", engine_key="0", size_bytes=0
)
_COSTS = Costs(convert_s=0, build_s=0, score_s=0, load_s=0, cold_call_s=0, measure_s=0)
_DEPLOYMENT = Deployment(
    variant="null", precision=Precision.FP32, batch_size=1, concurrency=1, options=()
)


def open_null(space: SearchSpace, store_root: Path, limit_bytes: int) -> NullSession:
    """Open the null session; the worker finds this function by name."""
    del space, store_root, limit_bytes
    return NullSession()


def open_phases(space: SearchSpace, store_root: Path, limit_bytes: int) -> PhasesSession:
    """Open the session of phases."""
    del space, store_root, limit_bytes
    return PhasesSession()


def _space() -> SearchSpace:
    return SearchSpace(
        name="null",
        source="bench_isolation.py",
        backend="fake",
        task=Task(
            kind=TaskKind.CLASSIFICATION, metric=None, data=None, preprocessing=Preprocessing()
        ),
        variants=(),
        axes=(),
        rules=(),
        objectives=(),
        constraints=(),
        plan=MeasuringPlan(max_memory_mb=1e6),  # watching the memory is part of the price
    )


def _worker(store: str, opener: str = "open_null") -> Worker:
    return Worker(
        _space(),
        store_root=Path(store),
        store_limit_bytes=0,
        opener=f"{Path(__file__).stem}:{opener}",
    )


def _ms(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return (perf_counter() - started) * _MS_PER_S


def _start_ms(store: str) -> float:
    with _worker(store) as worker:
        return _ms(worker.describe)


def _ignore(phase: str) -> None:
    del phase


def _phase_ms(store: str, trials: int) -> float:
    """Time one phase: the message to the owner and the answer."""
    with _worker(store, "open_phases") as worker:
        spent = [_ms(lambda: worker.run(_DEPLOYMENT, on_phase=_ignore)) for _ in range(trials)]
    return median(spent) / _MANY_PHASES


def _gate_ms(store: str, trials: int) -> float:
    """Time a gate that nobody passes, shut and opened again."""
    gate = Gate(Path(store))

    def shut_and_open() -> None:
        gate.shut()
        gate.open()

    return median(_ms(shut_and_open) for _ in range(trials))


def measure(trials: int) -> dict[str, float]:
    """Time the null trial both ways.

    Returns:
        Milliseconds by name.
    """
    session = NullSession()
    inside, outside = [], []
    with TemporaryDirectory() as store:
        starts = [_start_ms(store) for _ in range(_STARTS)]
        phase_ms, gate_ms = _phase_ms(store, _FEW), _gate_ms(store, trials)
        with _worker(store) as worker:
            worker.describe()
            for _ in range(trials):
                outside.append(_ms(lambda: session.run(_DEPLOYMENT, _ignore)))
                inside.append(_ms(lambda: worker.run(_DEPLOYMENT, on_phase=_ignore)))
    return {
        "in_process_p50_ms": median(outside),
        "worker_p50_ms": median(inside),
        "worker_p95_ms": quantiles(inside, n=20)[-1],
        "cost_p50_ms": median(w - p for w, p in zip(inside, outside, strict=True)),
        "phase_p50_ms": phase_ms,
        "gate_p50_ms": gate_ms,
        "fresh_start_p50_ms": median(starts),
    }


def main() -> int:
    """Print the table; exit with 3 where isolation or a phase costs more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.trials)
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name.removesuffix('_ms'):20} {value:9.3f} ms")
        print(f"{'limit of the cost':20} {_LIMIT_MS:9.3f} ms")
        print(f"{'limit of a phase':20} {_PHASE_LIMIT_MS:9.3f} ms")
    within = found["cost_p50_ms"] <= _LIMIT_MS and found["phase_p50_ms"] <= _PHASE_LIMIT_MS
    return 0 if within else 3


if __name__ == "__main__":
    sys.exit(main())
