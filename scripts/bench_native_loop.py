"""Measure what a closed loop in C would save of a request, beside ours in Python.

Both drive the same model through the same ONNX Runtime library with the same input: *ours* through
``closed_loop`` and the ``ort`` backend, *bare* in a Python loop without stamps, *C* in a loop that
is compiled here, calls the library's C interface and reads the same clock around each call. Blocks
of all alternate, forward and backward in turn. One worker, then two.

    python scripts/bench_native_loop.py            # two minutes; needs a C compiler, as ``cc``
    python scripts/bench_native_loop.py --smoke    # seconds, to see that it runs

References:
    ONNX Runtime, onnxruntime_c_api.h: ``OrtApi`` is a table of functions that only ever grows at
        its end, so that places in it stay. Those used are named below.
"""

import argparse
import ctypes
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Thread
from time import perf_counter_ns
from typing import Any

import numpy as np

from trials.backends.ort_engine import OrtEngine
from trials.measuring.closed_loop import ClosedLoop, Quota

_NEVER_S = 1e6  # blocks end by their requests
_API_VERSION = 22
_ERROR_MESSAGE, _ENVIRONMENT, _SESSION, _RUN, _OPTIONS = 2, 3, 7, 9, 10  # places in OrtApi
_INTRA_THREADS, _TENSOR, _CPU_MEMORY = 24, 49, 69
_FLOAT = 1  # ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
_QUIET = 3  # ORT_LOGGING_LEVEL_ERROR

LOOP = """
#include <stddef.h>
#include <stdint.h>
#include <time.h>
typedef void *(*run_t)(void *, const void *, const char *const *, const void *const *, size_t,
                       const char *const *, size_t, void **);
static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
int64_t drive(run_t run, void *session, void *input, void *output, int64_t requests,
              int64_t *starts, int64_t *ends) {
  const char *in = "x", *out = "y";
  for (int64_t at = 0; at < requests; at++) {
    int64_t start = now();
    void *status = run(session, NULL, &in, (const void *const *)&input, 1, &out, 1, &output);
    int64_t end = now();
    if (status) return at + 1;
    starts[at] = start;
    ends[at] = end;
  }
  return 0;
}
"""

Pointer = ctypes.c_void_p


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A chain of square products on one row; none of them copies the row."""

    name: str
    width: int
    products: int


MODELS = (
    Model(name="null", width=4, products=0),
    Model(name="small", width=256, products=2),
    Model(name="medium", width=512, products=3),
    Model(name="larger", width=1024, products=4),
)


class Native:
    """The C interface of ONNX Runtime: a session of its own on one thread, for one worker."""

    def __init__(self, model: Path, batch: Any, loop: Any) -> None:
        import onnxruntime

        folder = Path(onnxruntime.__file__).parent / "capi"
        library = ctypes.CDLL(str(next(folder.glob("libonnxruntime.so*"))))
        library.OrtGetApiBase.restype = Pointer
        base = ctypes.cast(library.OrtGetApiBase(), ctypes.POINTER(Pointer))
        table = ctypes.CFUNCTYPE(Pointer, ctypes.c_uint32)(base[0])(_API_VERSION)
        self._api = ctypes.cast(table, ctypes.POINTER(Pointer))
        self._loop = loop
        self._batch, self._answer = batch, np.empty_like(batch)
        environment = self._made(_ENVIRONMENT, ctypes.c_int(_QUIET), b"bench")
        options = self._made(_OPTIONS)
        self._call(_INTRA_THREADS, options, ctypes.c_int(1))
        self._session = self._made(_SESSION, environment, os.fsencode(model), options)
        memory = self._made(_CPU_MEMORY, ctypes.c_int(0), ctypes.c_int(0))
        self._input, self._output = (
            self._tensor(memory, array) for array in (self._batch, self._answer)
        )

    def block(self, requests: int) -> tuple[float, float]:
        """Run requests; returns microseconds a request and their median latency."""
        stamps = np.zeros((2, requests), dtype=np.int64)
        begin = perf_counter_ns()
        broken = self._loop(
            Pointer(self._api[_RUN]),
            self._session,
            self._input,
            self._output,
            ctypes.c_int64(requests),
            Pointer(stamps[0].ctypes.data),
            Pointer(stamps[1].ctypes.data),
        )
        took_us = (perf_counter_ns() - begin) / requests / 1e3
        if broken:
            raise RuntimeError(f"request {broken} failed")
        return took_us, float(np.median(stamps[1] - stamps[0])) / 1e3

    def _tensor(self, memory: Pointer, array: Any) -> Pointer:
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        data, size = Pointer(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        rank = ctypes.c_size_t(array.ndim)
        return self._made(_TENSOR, memory, data, size, shape, rank, ctypes.c_int(_FLOAT))

    def _made(self, place: int, *arguments: object) -> Pointer:
        made = Pointer()
        self._call(place, *arguments, ctypes.byref(made))
        return made

    def _call(self, place: int, *arguments: object) -> None:
        found = ctypes.CFUNCTYPE(Pointer)(self._api[place])(*arguments)
        if found:
            message = ctypes.CFUNCTYPE(ctypes.c_char_p, Pointer)(self._api[_ERROR_MESSAGE])
            raise RuntimeError(message(found).decode())


def compiled(folder: Path) -> Any:
    """Compile the loop.

    Raises:
        SystemExit: There is no compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("no C compiler (cc) on this machine: nothing to compare with")
    (folder / "loop.c").write_text(LOOP, encoding="utf-8")
    made = folder / "loop.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(folder / "loop.c")]
    subprocess.run(command, check=True)
    drive = ctypes.CDLL(str(made)).drive
    drive.restype = ctypes.c_int64
    return drive


def written(model: Model, folder: Path) -> Path:
    """Write a model's ONNX file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.full((model.width, model.width), 1 / model.width, dtype=np.float32)
    names = ["x", *(f"h{at}" for at in range(1, model.products)), "y"]
    nodes = [
        helper.make_node("MatMul", [before, "w"], [after]) for before, after in pairwise(names)
    ]
    if model.products == 0:
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
    row = [1, model.width]
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, row)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, row)],
        [numpy_helper.from_array(weights, "w")] if model.products else [],
    )
    opset = helper.make_opsetid("", 17)
    path = folder / f"{model.name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def session_over(path: Path) -> Any:
    """Open a session on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def bare_us(engine: OrtEngine, binding: Any, requests: int) -> float:
    """Run requests in a Python loop with nothing around them; microseconds a request."""
    run = engine.run
    gc.disable()
    try:
        begin = perf_counter_ns()
        for _ in range(requests):
            run(binding)
        return (perf_counter_ns() - begin) / requests / 1e3
    finally:
        gc.enable()


def in_threads(natives: Sequence[Native], requests: int) -> tuple[float, float]:
    """Let each run its share at the same time; microseconds a request and median latency."""
    barrier, found = Barrier(len(natives) + 1), []

    def work(native: Native) -> None:
        barrier.wait()
        found.append(native.block(requests // len(natives)))

    threads = [Thread(target=work, args=(native,)) for native in natives]
    for thread in threads:
        thread.start()
    barrier.wait()
    for thread in threads:
        thread.join()
    each_us = max(took for took, _ in found)
    return each_us / len(natives), float(np.median([p50 for _, p50 in found]))


def compare(model: Model, folder: Path, loop: Any, *, rounds: int, block_s: float) -> None:
    """Alternate blocks of all and print rows for one and two workers."""
    path = written(model, folder)
    batch = np.ones((1, model.width), dtype=np.float32)
    engine = OrtEngine(session_over(path))
    binding = engine.binding({"x": batch})
    requests = max(64, int(block_s * 1e6 / bare_us(engine, binding, 200)))
    for workers in (1, 2):
        natives = [Native(path, batch, loop) for _ in range(workers)]
        with ClosedLoop(engine, [{"x": batch}], workers=workers, batch_size=1) as ours:

            def our_block(ours: ClosedLoop = ours) -> tuple[float, float]:
                block = ours.block(Quota(window_s=0.0, requests=requests, cap_s=_NEVER_S))
                each_us = block.window_s / block.latencies_s.size * 1e6
                return each_us, float(np.median(block.latencies_s)) * 1e6

            def native_block(natives: Sequence[Native] = natives) -> tuple[float, float]:
                return in_threads(natives, requests)

            runs: list[Callable[[], tuple[float, float]]] = [our_block, native_block]
            table = np.empty((rounds, 2, 2))
            for at in range(rounds):
                for which in (0, 1) if at % 2 == 0 else (1, 0):
                    table[at, which] = runs[which]()
        _print_row(model, workers, table)


def _print_row(model: Model, workers: int, table: Any) -> None:
    (our_us, our_p50), (native_us, native_p50) = np.median(table, axis=0)
    saved = np.sort(table[:, 0, 1] - table[:, 1, 1])
    rank = max(0, int(len(saved) / 2 - np.sqrt(len(saved))))  # about 95 %
    print(
        f"{model.name:<8}{workers:>8}{our_p50:>11.2f}{native_p50:>9.2f}"
        f"{np.median(saved):>9.2f} [{saved[rank]:.2f}, {saved[-1 - rank]:.2f}] "
        f"{1 - native_p50 / our_p50:>7.1%}{1e6 / our_us:>12,.0f}{1e6 / native_us:>12,.0f}"
        f"{our_us / native_us:>7.2f}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--block-s", type=float, default=0.1)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    rounds, block_s = (4, 0.01) if arguments.smoke else (arguments.rounds, arguments.block_s)
    print(f"{rounds} rounds of {block_s}-s blocks; load {os.getloadavg()[0]:.1f}; {sys.version}")
    print("model    workers  our p50 us  C's p50 saved, 95 %  share  requests/s: ours, C, C/ours")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loop = compiled(folder)
        for model in MODELS:
            compare(model, folder, loop, rounds=rounds, block_s=block_s)


if __name__ == "__main__":
    main()
