"""Measure what the load generator costs a request, against a bare loop in the same run.

Both loops drive the same ONNX Runtime session through ``io_binding`` with the same input, ours
through ``closed_loop`` and the ``ort`` backend's lane with one worker, bare in a loop that
takes no stamp at all. Blocks of both alternate in ABBA order, so that a drifting machine burdens
both alike, and the difference is taken between neighbours. To reach: at most 2.5 us a request
above bare on a model that does nothing, at most 1 % at 1 ms.

    python scripts/bench_load.py            # about a minute
    python scripts/bench_load.py --smoke    # a few seconds, to see that it runs
"""

import argparse
import gc
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from trials.backend import Tensors
from trials.backends.ort_engine import OrtEngine
from trials.measuring.closed_loop import ClosedLoop, Quota

_NULL_LIMIT_US = 2.5
_SLOW_LIMIT = 0.01
_SLOW_US = 1000.0
_NEVER_S = 1e6  # blocks end by their requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long to measure: pairs of neighbouring blocks, and the length of a block."""

    pairs: int
    block_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Microseconds a request: medians over blocks, and the difference of neighbours.

    Attributes:
        low_us: Lower limit of the 95 % interval of the median difference; likewise ``high_us``.
    """

    model: str
    bare_us: float
    ours_us: float
    difference_us: float
    low_us: float
    high_us: float

    def verdict(self) -> str:
        """Say whether the limit for this model was kept; empty where there is none."""
        if self.model == "null":
            limit_us = _NULL_LIMIT_US
        elif self.bare_us > _SLOW_US / 2:
            limit_us = _SLOW_LIMIT * self.bare_us
        else:
            return ""
        kept = "kept" if self.high_us <= limit_us else "undecided"
        return f"limit {limit_us:.1f} us {'broken' if self.low_us > limit_us else kept}"


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


def bare_loop(session: Any, batch: Tensors) -> Callable[[int], float]:
    """Return what runs ``n`` requests with nothing around them and gives us a request."""
    from onnxruntime import OrtValue

    run, binding = session.run_with_iobinding, session.io_binding()
    binding.bind_ortvalue_input("x", OrtValue.ortvalue_from_numpy(batch["x"]))
    out = OrtValue.ortvalue_from_numpy(np.empty_like(batch["x"]))
    binding.bind_ortvalue_output("y", out)

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


def compare(name: str, model: bytes, *, width: int, size: Size) -> Comparison:
    """Alternate blocks of the two loops over one model."""
    rows = 1 if name == "null" else width
    batch = {"x": np.ones((rows, width), dtype=np.float32)}
    session = session_over(model)
    bare = bare_loop(session, batch)
    with ClosedLoop(OrtEngine(session), [batch], workers=1, batch_size=1) as loop:

        def ours(requests: int) -> float:
            block = loop.block(Quota(window_s=0.0, requests=requests, cap_s=_NEVER_S))
            return block.window_s / block.latencies_s.size * 1e6

        bare(20)
        requests = max(20, int(size.block_s * 1e6 / bare(100)))
        ours(requests)
        pairs = [_pair(bare, ours, requests=requests, flip=at % 2) for at in range(size.pairs)]
    table = np.array(pairs)
    differences = np.sort(table[:, 1] - table[:, 0])
    low, high = _median_limits(size.pairs)
    return Comparison(
        model=name,
        bare_us=float(np.median(table[:, 0])),
        ours_us=float(np.median(table[:, 1])),
        difference_us=float(np.median(differences)),
        low_us=float(differences[low]),
        high_us=float(differences[high]),
    )


def _pair(
    bare: Callable[[int], float], ours: Callable[[int], float], *, requests: int, flip: int
) -> tuple[float, float]:
    if flip:
        second = ours(requests)
        return bare(requests), second
    first = bare(requests)
    return first, ours(requests)


def _median_limits(count: int) -> tuple[int, int]:
    """Return the indices of the order statistics that hold the median in 95 % (sign test)."""
    reach = 0.98 * math.sqrt(count)  # 1.96 standard deviations of a binomial with p = 1/2
    rank = max(1, math.floor(count / 2 - reach))
    return rank - 1, count - rank


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
        ", ".join(f"{name} {version(name)}" for name in ("numpy", "onnxruntime", "onnx")),
    ]
    return "\n".join(facts)


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few short blocks")
    smoke = parser.parse_args(arguments).smoke
    # six pairs are the fewest whose extremes hold a median in 95 %
    size = Size(pairs=6, block_s=0.02) if smoke else Size(pairs=100, block_s=0.1)
    print(describe_machine())
    print(
        f"{size.pairs} pairs of blocks of {size.block_s} s, one worker, one thread in the engine"
    )
    print(f"{'model':<12}{'bare us':>10}{'ours us':>10}{'diff us':>9}{'diff %':>8}   95 %")
    models = [("null", null_model(), 4)]
    for target_us in (100.0, _SLOW_US):
        width = width_for(target_us)
        models.append((f"matmul-{width}", matmul_model(width), width))
    for name, model, width in models:
        found = compare(name, model, width=width, size=size)
        print(
            f"{name:<12}{found.bare_us:>10.2f}{found.ours_us:>10.2f}{found.difference_us:>9.2f}"
            f"{found.difference_us / found.bare_us:>8.2%}   "
            f"[{found.low_us:.2f}, {found.high_us:.2f}] us  {found.verdict()}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
