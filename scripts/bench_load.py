"""Measure what the load generator costs a request, beside a bare loop and MLPerf's LoadGen.

All drive the same ONNX Runtime session through ``io_binding`` with the same input on one thread:
*bare* in a loop that takes no stamp at all, *ours* through ``closed_loop`` and the ``ort``
backend's lane, *LoadGen* (PyPI ``mlcommons-loadgen``) in its SingleStream scenario with a system
under test in Python. Blocks of all alternate, forward and backward in turn, so that a drifting
machine burdens them alike, and differences are taken within a round. Then the processor's time a
request with 1 to 8 workers, and how punctual the open loop is.

    python scripts/bench_load.py            # minutes
    python scripts/bench_load.py --smoke    # a few seconds, to see that it runs
"""

import argparse
import gc
import math
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from time import perf_counter_ns, process_time_ns
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search_spaces.arrivals import PoissonArrivals
from trials.backend import Request, Tensors
from trials.backends.ort_engine import OrtEngine
from trials.measuring.batcher import Batcher
from trials.measuring.closed_loop import ClosedLoop, Quota
from trials.measuring.ladder import Ladder
from trials.measuring.open_loop import OpenLoop
from trials.measuring.schedules import Stretch, due_times
from trials.measuring.served import Timetable

_NULL_LIMIT_US = 2.5
_SLOW_LIMIT = 0.005
_SLOW_US = 1000.0
_CPU_LIMIT = 0.05
_WORKERS = (1, 2, 4, 8)
_LATE_LIMIT_US = 2.0
_NEVER_S = 1e6  # blocks end by their requests
_RATE_RPS = 1_000.0

Run: TypeAlias = Callable[[int], tuple[float, float]]
"""Run that many requests; returns (microseconds a request, median latency in microseconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long to measure: rounds of one block each, and the length of a block."""

    rounds: int
    block_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model to drive."""

    name: str
    content: bytes
    width: int

    @property
    def batch(self) -> Tensors:
        """Its input."""
        rows = 1 if self.name == "null" else self.width
        return {"x": np.ones((rows, self.width), dtype=np.float32)}


def session_over(model: bytes) -> Any:
    """Open the session on one thread that both loops share; two sessions differ by 0.3 %."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def null_model() -> bytes:
    """Make a model that copies four numbers."""
    return _model([_node("Identity", ["x"])], width=4, weights=None)


def matmul_model(width: int) -> bytes:
    """Make a model of one square product, ``width``³ multiplications."""
    weights = np.full((width, width), 1 / width, dtype=np.float32)
    return _model([_node("MatMul", ["x", "w"])], width=width, weights=weights)


def _node(kind: str, inputs: list[str]) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, ["y"])


def _model(nodes: list[Any], *, width: int, weights: Any) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    rows = 1 if weights is None else width
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, width])],
        [] if weights is None else [numpy_helper.from_array(weights, "w")],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


def width_for(target_us: float) -> int:
    """Find the width whose product takes about ``target_us`` on this machine."""
    width = 32
    while True:
        batch = {"x": np.ones((width, width), dtype=np.float32)}
        bare = bare_loop(session_over(matmul_model(width)), batch)
        bare(20)
        took_us = min(bare(20) for _ in range(5))
        if took_us >= 0.8 * target_us:
            return width
        growth = (target_us / took_us) ** (1 / 3)
        width = max(width + 4, math.ceil(width * min(2.0, growth)))


def bound(session: Any, batch: Tensors) -> Any:
    """Bind an input and an output of its shape."""
    from onnxruntime import OrtValue

    binding = session.io_binding()
    binding.bind_ortvalue_input("x", OrtValue.ortvalue_from_numpy(batch["x"]))
    out = OrtValue.ortvalue_from_numpy(np.empty_like(batch["x"]))
    binding.bind_ortvalue_output("y", out)
    return binding


def bare_loop(session: Any, batch: Tensors) -> Callable[[int], float]:
    """Return what runs ``n`` requests with nothing around them and gives us a request."""
    run, binding = session.run_with_iobinding, bound(session, batch)

    def block(requests: int) -> float:
        gc.disable()
        try:
            start = perf_counter_ns()
            for _ in range(requests):
                run(binding)
            return (perf_counter_ns() - start) / requests / 1e3
        finally:
            gc.enable()

    return block


def ours_loop(loop: ClosedLoop) -> Run:
    """Return what runs requests through our closed loop."""

    def block(requests: int) -> tuple[float, float]:
        found = loop.block(Quota(window_s=0.0, requests=requests, cap_s=_NEVER_S))
        latencies_us = found.latencies_s * 1e6
        return found.window_s / latencies_us.size * 1e6, float(np.median(latencies_us))

    return block


@contextmanager
def loadgen_loop(session: Any, batch: Tensors) -> Iterator[Run]:
    """Yield what runs requests through LoadGen's SingleStream scenario."""
    import mlperf_loadgen as loadgen

    run, binding = session.run_with_iobinding, bound(session, batch)

    def issue(samples: Any) -> None:
        run(binding)
        loadgen.QuerySamplesComplete(
            [loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in samples]
        )

    system = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(1024, 1024, lambda _: None, lambda _: None)
    try:
        yield lambda requests: _loadgen_block(loadgen, system, library, requests)
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)


def _loadgen_block(loadgen: Any, system: Any, library: Any, requests: int) -> tuple[float, float]:
    settings, log = loadgen.TestSettings(), loadgen.LogSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = 0
    settings.min_query_count = settings.max_query_count = requests
    with tempfile.TemporaryDirectory() as folder:
        log.log_output.outdir = folder
        log.enable_trace = False
        loadgen.StartTestWithLogSettings(system, library, settings, log)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text(encoding="utf-8")
    facts = dict(line.split(":", 1) for line in summary.splitlines() if line.count(":") == 1)
    told = {name.strip(): value.strip() for name, value in facts.items()}
    rate = float(told["QPS w/ loadgen overhead"])
    return 1e6 / rate, float(told["50.00 percentile latency (ns)"]) / 1e3


def compare(model: Model, size: Size) -> str:
    """Alternate blocks of all loops over one model; returns a row of the table."""
    session = session_over(model.content)
    batch = model.batch
    bare = bare_loop(session, batch)
    with (
        ClosedLoop(OrtEngine(session), [batch], workers=1, batch_size=1) as loop,
        loadgen_loop(session, batch) if has_loadgen() else _nothing() as theirs,
    ):
        runs: list[Run] = [lambda n: (bare(n), math.nan), ours_loop(loop), theirs]
        bare(20)
        requests = max(64, int(size.block_s * 1e6 / bare(20)))
        for run in runs:
            run(requests)
        table = _rounds(runs, requests, size.rounds)
    return _row(model.name, table)


@contextmanager
def _nothing() -> Iterator[Run]:
    """Stand in for a LoadGen that is not installed."""
    yield lambda _: (math.nan, math.nan)


def _rounds(runs: Sequence[Run], requests: int, rounds: int) -> NDArray[np.float64]:
    """Run each once a round, backward in every other one; shape ``(rounds, runs, 2)``."""
    table = np.empty((rounds, len(runs), 2))
    for at in range(rounds):
        order = range(len(runs))
        for which in order if at % 2 == 0 else reversed(order):
            table[at, which] = runs[which](requests)
    return table


def _row(name: str, table: NDArray[np.float64]) -> str:
    bare_us, ours_us, _ = np.median(table[:, :, 0], axis=0)
    extra_us, low_us, high_us = median_of(table[:, 1, 0] - table[:, 0, 0])
    ours_p50_us, theirs_p50_us = np.median(table[:, 1:, 1], axis=0)
    ratio, low, high = median_of(table[:, 1, 1] / table[:, 2, 1])
    limit_us = _NULL_LIMIT_US if bare_us < _SLOW_US / 2 else _SLOW_LIMIT * bare_us
    return (
        f"{name:<12}{bare_us:>10.2f}{ours_us:>10.2f}{extra_us:>8.2f} us [{low_us:.2f}, "
        f"{high_us:.2f}] {extra_us / bare_us:>7.2%}  "
        f"{verdict(low_us, high_us, limit_us, 'us'):<22}"
        f"{ours_p50_us:>10.2f}{theirs_p50_us:>10.2f}  {ratio:.3f} [{low:.3f}, {high:.3f}]"
    )


def threads_rows(model: Model, size: Size) -> Iterator[str]:
    """Compare the processor's time a request with that of bare threads, 1 to 8 of them.

    Not only with one worker's: on a busy or hyper-threaded machine the engine itself takes longer
    when several run, whoever drives them.
    """
    session = session_over(model.content)
    for count in _WORKERS:
        pairs = []
        engine = _Counting(OrtEngine(session))
        with ClosedLoop(engine, [model.batch], workers=count, batch_size=1) as loop:
            for at in range(size.rounds):
                runs = [
                    partial(_ours_cpu_us, loop, engine, size),
                    partial(_bare_cpu_us, session, model, size, count),
                ]
                order = (0, 1) if at % 2 == 0 else (1, 0)
                took = {which: runs[which]() for which in order}
                pairs.append((took[0], took[1]))
        table = np.array(pairs)
        ratio, low, high = median_of(table[:, 0] / table[:, 1])
        ours_us, bare_us = np.median(table, axis=0)
        yield (
            f"{model.name:<12}{count} workers  bare {bare_us:.1f}, ours {ours_us:.1f} us a "
            f"request; ratio {ratio:.3f} [{low:.3f}, {high:.3f}]"
        )


class _Counting:
    """An engine that counts every request: a block tells only of those that count."""

    def __init__(self, engine: OrtEngine) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.infer, self.close = engine.infer, engine.close
        self._engine = engine
        self.sent: list[int] = []

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        with self._engine.lane(batches) as requests:
            yield [self._counted(request) for request in requests]

    def _counted(self, request: Request) -> Request:
        sent = self.sent

        def counted() -> None:
            request()
            sent.append(1)

        return counted


def _ours_cpu_us(loop: ClosedLoop, engine: _Counting, size: Size) -> float:
    engine.sent.clear()
    before = process_time_ns()
    loop.block(Quota(window_s=size.block_s, requests=1, cap_s=_NEVER_S))
    return (process_time_ns() - before) / len(engine.sent) / 1e3


def _bare_cpu_us(session: Any, model: Model, size: Size, count: int) -> float:
    run, done = session.run_with_iobinding, []

    def work() -> None:
        binding, requests = bound(session, model.batch), 0
        stop = perf_counter_ns() + round(size.block_s * 1e9)
        while perf_counter_ns() < stop:
            run(binding)
            requests += 1
        done.append(requests)

    threads = [Thread(target=work) for _ in range(count)]
    before = process_time_ns()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (process_time_ns() - before) / sum(done) / 1e3


def lateness_row(model: Model, size: Size, *, lanes: int) -> str:
    """Say how late the open loop sends single requests that come as a Poisson process."""
    ladder = Ladder(sizes=(1,), inputs=((model.batch,),))  # the whole input is one request
    batcher = Batcher(largest=1, max_delay_ns=0)
    late_us: list[NDArray[np.float64]] = []
    engine = OrtEngine(session_over(model.content))
    with OpenLoop(engine, ladder, lanes=lanes, batcher=batcher) as loop:
        for number in range(size.rounds):
            stretch = Stretch(begin_s=0.0, length_s=4 * size.block_s, number=number)
            due_s = due_times(PoissonArrivals(), stretch, rate_rps=_RATE_RPS)
            timetable = Timetable(due_s=due_s, counted=due_s.size, patience_s=60.0)
            served = loop.serve(timetable)
            late_us.append((served.starts_ns - served.moments_ns) / 1e3)
    medians = np.array([np.median(one) for one in late_us])
    p50, low, high = median_of(medians)
    p99 = np.quantile(np.concatenate(late_us), 0.99)
    return (
        f"{model.name:<12}{lanes} lanes  late p50 {p50:.2f} us [{low:.2f}, {high:.2f}], "
        f"p99 {p99:.1f} us  {verdict(low, high, _LATE_LIMIT_US, 'us')}"
    )


def verdict(low: float, high: float, limit: float, unit: str) -> str:
    """Say whether a limit was kept by a whole interval, broken by it, or neither."""
    kept = "kept" if high <= limit else "undecided"
    return f"limit {limit:.1f} {unit} {'broken' if low > limit else kept}"


def median_of(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return a median and its 95 % interval (sign test)."""
    reach = 0.98 * math.sqrt(values.size)  # 1.96 standard deviations of a binomial with p = 1/2
    rank = max(1, math.floor(values.size / 2 - reach))
    ordered = np.sort(values)
    return float(np.median(values)), float(ordered[rank - 1]), float(ordered[-rank])


def has_loadgen() -> bool:
    """Tell whether LoadGen is installed."""
    return find_spec("mlperf_loadgen") is not None


def describe_machine() -> str:
    """Say on what, with what and beside what load this was measured."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    )
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    pressure = Path("/proc/pressure/cpu")
    facts = [
        f"cpu: {models[0] if models else platform.processor()}, {os.cpu_count()} cores",
        f"load average: {' '.join(f'{load:.2f}' for load in os.getloadavg())}",
        f"pressure: {pressure.read_text().splitlines()[0] if pressure.exists() else 'not told'}",
        f"python {platform.python_version()}",
        ", ".join(map(_versioned, ("numpy", "onnxruntime", "onnx", "mlcommons-loadgen"))),
    ]
    return "\n".join(facts)


def _versioned(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package} (scripts/install bench)"


def models(targets_us: Sequence[float]) -> Iterator[Model]:
    """Yield the null model and products that take about so long here."""
    yield Model(name="null", content=null_model(), width=4)
    for target_us in targets_us:
        width = width_for(target_us)
        yield Model(name=f"matmul-{width}", content=matmul_model(width), width=width)


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few short blocks")
    smoke = parser.parse_args(arguments).smoke
    # six rounds are the fewest whose extremes hold a median in 95 %
    size = Size(rounds=6, block_s=0.02) if smoke else Size(rounds=40, block_s=0.1)
    print(describe_machine())
    print(f"{size.rounds} rounds of blocks of {size.block_s} s, one thread in the engine\n")
    print(
        f"{'closed loop':<12}{'bare us':>10}{'ours us':>10}{'ours - bare':>32}{'':<22}"
        f"{'our p50':>16}{'LoadGen':>10}  ratio of p50, 95 %"
    )
    found = list(models((100.0, _SLOW_US) if smoke else (100.0, _SLOW_US, 10 * _SLOW_US)))
    for model in found:
        print(compare(model, size), flush=True)
    print(f"\nprocessor's time, limit {1 + _CPU_LIMIT:.2f} of bare threads'")
    for row in threads_rows(found[2], Size(rounds=min(30, size.rounds), block_s=size.block_s)):
        print(row, flush=True)
    print(f"\nopen loop, Poisson, {_RATE_RPS:g} requests/s")
    for model in found[:2]:
        for lanes in (1, 2):
            print(lateness_row(model, size, lanes=lanes), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
