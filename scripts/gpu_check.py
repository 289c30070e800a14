"""Check a GPU machine in one go and write a report; run it as ``scripts/gpu-check``.

For a bare machine: numpy and torch are enough. Nothing of the card is changed. What is recorded is
raw: the latencies of every request of every block, to be made into numbers elsewhere, where
trifront is installed (``python scripts/gpu_table.py DIR``).

    DIR/report.md, report.json   what is here, what is not and why, what came out
    DIR/blocks.npz               latencies in ns, by number of deployment and block

The parts, each of which may fail without stopping the others: versions and card; TensorRT, if a
folder with it is named; what our loop costs; ours against a bare loop over the same work, in
turns; a grid of deployments of residual networks.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.deployment import Deployment, Precision, Scalar
from trials.backend import Tensors
from trials.backends.torch_backend import TorchBackend, has_compiler
from trials.backends.torch_card import find_card
from trials.backends.torch_memory import no_card
from trials.capabilities import engine_spec
from trials.errors import TrialError
from trials.measurement import Block
from trials.measuring.closed_loop import ClosedLoop, Quota
from trials.models.torch_precision import convert
from trials.models.torch_program import body_of, exported, read_program, write_program

LIBRARIES = ("numpy", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "triton", "nvidia-ml-py")
CARD_QUERY = (
    "name,uuid,driver_version,memory.total,memory.used,compute_cap,clocks.max.sm,power.limit,"
    "persistence_mode,compute_mode,mig.mode.current,ecc.mode.current"
)
SAMPLES = 256  # that precisions are held against fp32 on
NS = 1_000_000_000
TENSORRT_DEADLINE_S = 90
_TRY_TENSORRT = Path(__file__).with_name("try_tensorrt.py")
_COST_BLOCKS = 9
_COST_REQUESTS = 2_000


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done.

    Attributes:
        widths: Channels of the residual networks' first stage, by name.
        image: Height and width of the images.
        blocks: Per deployment.
        block_s: Length of one, seconds.
        turns: Fours of blocks, ours and the bare loop's.
        compiles: Whether modes that call a compiler are tried too.
    """

    widths: dict[str, int]
    image: int
    batches: tuple[int, ...]
    concurrencies: tuple[int, ...]
    blocks: int
    block_s: float
    warmup_s: float
    turns: int
    compiles: bool


FULL = Size(
    widths={"resnet-w32": 32, "resnet-w64": 64},
    image=64,
    batches=(1, 8, 64),
    concurrencies=(1, 2, 4),
    blocks=8,
    block_s=0.1,
    warmup_s=0.3,
    turns=10,
    compiles=True,
)
SMOKE = Size(
    widths={"resnet-w4": 4, "resnet-w8": 8},
    image=16,
    batches=(1, 4),
    concurrencies=(1,),
    blocks=3,
    block_s=0.02,
    warmup_s=0.02,
    turns=2,
    compiles=False,
)


@dataclass(kw_only=True)
class Check:
    """One run: what it is to do, and what it has found so far."""

    backend: TorchBackend
    device: str
    size: Size
    ends_s: float
    tensorrt: Path | None
    folder: Path
    found: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    latencies: dict[str, Any] = field(default_factory=dict)
    wanted: dict[tuple[str, int], NDArray[np.float32]] = field(default_factory=dict)

    def part(self, name: str, work: Callable[["Check"], Any]) -> None:
        """Do one part; what breaks there is what the report says of it."""
        started = time.monotonic()
        try:
            self.found[name] = work(self)
        except Exception as error:  # noqa: BLE001 - the other parts are still worth having
            self.missing[name] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def versions(_: Check) -> dict[str, str]:
    """Say what is installed."""
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    import torch

    found["cuda of torch"] = str(torch.version.cuda)
    found["cudnn"] = str(torch.backends.cudnn.version())
    found["cpus"] = str(len(os.sched_getaffinity(0)))
    found["C++ compiler"] = "yes" if has_compiler() else "none: no mode compile or aot"
    return found


def card(_: Check) -> dict[str, str]:
    """Ask nvidia-smi, which only looks."""
    if shutil.which("nvidia-smi") is None:
        raise FileNotFoundError("nvidia-smi is not on the PATH: no NVIDIA driver here")
    ran = subprocess.run(
        ["nvidia-smi", f"--query-gpu={CARD_QUERY}", "--format=csv,noheader"],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if ran.returncode:
        raise OSError(f"nvidia-smi ends with {ran.returncode}: {ran.stdout}{ran.stderr}")
    first = ran.stdout.splitlines()[0].split(", ")
    return dict(zip(CARD_QUERY.split(","), first, strict=True))


def tensorrt(check: Check) -> dict[str, Any]:
    """Let TensorRT build, load and run in a process of its own, and keep its words."""
    if check.tensorrt is None:
        raise FileNotFoundError("no folder was named: --tensorrt DIR with an unpacked wheel")
    ran = subprocess.run(
        [sys.executable, str(_TRY_TENSORRT), str(check.tensorrt)],
        capture_output=True,
        text=True,
        timeout=TENSORRT_DEADLINE_S,
        check=False,
    )
    steps = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {"steps": steps, "exit": ran.returncode, "last words": ran.stderr[-2000:]}


def models(check: Check) -> dict[str, Any]:
    """Write residual networks of seeded weights as programs, in every precision that is honoured.

    Their answers on seeded images are held against those of fp32: nothing here is trained.
    """
    found: dict[str, Any] = {}
    for name, width in check.size.widths.items():
        path = check.folder / f"{name}.pt2"
        shape = (3, check.size.image, check.size.image)
        write_program(exported(_resnet(width), shape=shape, dtype="float32"), path)
        for precision in check.backend.capabilities().precisions:
            convert(path, precision, check.folder / f"{name}-{precision}.pt2")
        found[name] = {"width": width, "input": shape, "bytes": path.stat().st_size}
    return found


def loop_cost(check: Check) -> dict[str, float]:
    """Say what our loop adds to a request, us: two readings of the clock, and what lies between.

    Over requests that do nothing, and over the smallest work that the device can be given. Each
    number is the least of several blocks, for other work on the machine only ever adds.
    """
    found = {}
    for name, request in (("nothing", _nothing), ("least work", _least_work(check))):
        bare_us, ours_us = [], []
        with ClosedLoop(_One(request), [{}], workers=1, batch_size=1) as loop:
            for _ in range(_COST_BLOCKS):
                bare_us.append(_untimed_us(request))
                block = loop.block(_quota(loop, check.size.block_s))
                ours_us.append(1e6 * block.window_s / block.latencies_s.size)
        found[f"{name}: a request in a loop without a clock, us"] = min(bare_us)
        found[f"{name}: in ours, us"] = min(ours_us)
        found[f"{name}: more in ours, us"] = min(ours_us) - min(bare_us)
    return found


def _untimed_us(request: Callable[[], object]) -> float:
    begin = perf_counter_ns()
    for _ in range(_COST_REQUESTS):
        request()
    return (perf_counter_ns() - begin) / 1000 / _COST_REQUESTS


def against_bare(check: Check) -> list[dict[str, Any]]:
    """Drive the same work with our engine and loop, and bare, in turns (ABBA).

    Bare is what one writes by hand: a CUDA graph of the module with static buffers, replayed and
    waited for; on the CPU the module itself.
    """
    rows = []
    for name, batch in product(
        check.size.widths, (min(check.size.batches), max(check.size.batches))
    ):
        deployment = _deployment(name, Precision.FP32, batch, 1, graphed=check.device != "cpu")
        with _engine(check, deployment) as engine, _bare(check, name, batch) as request:
            images = _images(check, batch)
            with ClosedLoop(engine, [images], workers=1, batch_size=batch) as loop:
                sides: dict[str, list[Block]] = {"ours": [], "bare": []}
                for turn in range(2 * check.size.turns + 1):
                    order = ("ours", "bare") if turn % 2 else ("bare", "ours")
                    for side in order:
                        block = (
                            loop.block(_quota(loop, check.size.block_s))
                            if side == "ours"
                            else _bare_block(request, check.size.block_s, batch)
                        )
                        if turn:  # the first warms both
                            sides[side].append(block)
        rows.append({"model": name, "batch_size": batch, **_ratios(sides)})
    return rows


def grid(check: Check) -> list[dict[str, Any]]:
    """Measure deployments in a seeded random order until the time is up."""
    size, honoured = check.size, check.backend.capabilities().precisions
    graphed = (True, False) if check.device != "cpu" else (False,)
    points = [
        _deployment(name, precision, batch, concurrency, graphed=graph)
        for name, precision, batch, concurrency, graph in product(
            size.widths, honoured, size.batches, size.concurrencies, graphed
        )
    ]
    random.Random(0).shuffle(points)  # noqa: S311 - an order, no secret
    if check.size.compiles and has_compiler():  # last, for compilers take long
        points += [
            _deployment(name, Precision.FP16, max(size.batches), 1, graphed=graphed[0], mode=mode)
            for name, mode in product(size.widths, ("aot", "compile"))
        ]
    rows = []
    for number, deployment in enumerate(points):
        if time.monotonic() > check.ends_s:
            check.missing["grid"] = f"the time was up after {number} of {len(points)} deployments"
            break
        rows.append(_measured(check, deployment, number))
    return rows


def _measured(check: Check, deployment: Deployment, number: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "number": number,
        "variant": deployment.variant,
        "precision": deployment.precision.value,
        "batch_size": deployment.batch_size,
        "concurrency": deployment.concurrency,
        "options": dict(deployment.options),
    }
    try:
        with _engine(check, deployment, costs=row) as engine:
            row |= _agreement(check, deployment, engine)
            images = [_images(check, deployment.batch_size, seed=seed) for seed in range(4)]
            loop = ClosedLoop(
                engine,
                images,
                workers=deployment.concurrency,
                batch_size=deployment.batch_size,
            )
            with loop:
                row["cold_call_s"] = loop.cold_call()
                loop.block(_quota(loop, check.size.warmup_s, requests=20))
                blocks = [
                    loop.block(_quota(loop, check.size.block_s)) for _ in range(check.size.blocks)
                ]
        if check.device == "cuda":  # elsewhere it takes a process of its own
            row["peak_memory_bytes"] = check.backend.peak_memory(
                _plan(check), deployment, images[0], deadline_s=60
            )
    except TrialError as error:
        return {**row, "error": f"{type(error).__name__}: {error}"}
    row["blocks"] = [{"start_s": one.start_s, "window_s": one.window_s} for one in blocks]
    for at, block in enumerate(blocks):
        check.latencies[f"{number}.{at}"] = np.rint(block.latencies_s * NS).astype(np.int64)
    return row


def _agreement(check: Check, deployment: Deployment, engine: Any) -> dict[str, float]:
    """Hold answers against fp32 on the CPU: the share of same classes, the largest difference."""
    batches = _asked(check, deployment.batch_size)
    wanted = _wanted(check, deployment.variant, deployment.batch_size)
    found = np.concatenate([engine.infer(one)["outputs"] for one in batches])
    return {
        "agreement": float((found.argmax(1) == wanted.argmax(1)).mean()),
        "samples": float(len(wanted)),
        "deviation": float(np.abs(found - wanted).max() / np.abs(wanted).max()),
    }


def _asked(check: Check, batch_size: int) -> list[dict[str, NDArray[np.float32]]]:
    count = max(1, SAMPLES // batch_size)
    return [_images(check, batch_size, seed=100 + at) for at in range(count)]


def _wanted(check: Check, variant: str, batch_size: int) -> NDArray[np.float32]:
    """Return what fp32 answers on the CPU; computed once for each model and batch size."""
    import torch

    key = (variant, batch_size)
    if key not in check.wanted:
        body = body_of(read_program(check.folder / f"{variant}.pt2"))
        with torch.inference_mode():
            answers = [
                body(torch.from_numpy(one["inputs"]))[0].numpy()
                for one in _asked(check, batch_size)
            ]
        check.wanted[key] = np.concatenate(answers)
    return check.wanted[key]


@contextmanager
def _engine(
    check: Check, deployment: Deployment, *, costs: dict[str, Any] | None = None
) -> Iterator[Any]:
    spec = engine_spec(
        deployment,
        backend_name="torch",
        model_digest="",
        capabilities=check.backend.capabilities(),
        environment=(),
    )
    model = check.folder / f"{deployment.variant}-{deployment.precision}.pt2"
    started = time.monotonic()
    check.backend.build(model, spec, _plan(check))
    built = time.monotonic()
    engine = check.backend.load(_plan(check), deployment)
    if costs is not None:
        costs |= {"build_s": built - started, "load_s": time.monotonic() - built}
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def _bare(check: Check, name: str, batch: int) -> Iterator[Callable[[], object]]:
    """Give one request as it is written by hand."""
    import torch

    body = body_of(read_program(check.folder / f"{name}.pt2")).to(check.device)
    x = torch.from_numpy(_images(check, batch)["inputs"]).to(check.device)
    with torch.inference_mode():
        if check.device == "cpu":
            torch.set_num_threads(1)
            yield lambda: body(x)
            return
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                body(x)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            kept = body(x)

        def request() -> None:
            graph.replay()
            stream.synchronize()

        with torch.cuda.stream(stream):
            yield request
        del kept


def _bare_block(request: Callable[[], object], block_s: float, batch: int) -> Block:
    """Time requests one by one without anything of ours, as a first script does."""
    latencies: list[int] = []
    begin = perf_counter_ns()
    end = begin
    while end - begin < block_s * NS:
        start = perf_counter_ns()
        request()
        end = perf_counter_ns()
        latencies.append(end - start)
    return Block(
        start_s=begin / NS,
        window_s=(end - begin) / NS,
        latencies_s=np.array(latencies) / NS,
        batch_size=batch,
    )


def _ratios(sides: dict[str, Sequence[Block]] | dict[str, list[Block]]) -> dict[str, float]:
    """Compare pairs of neighbouring blocks: the median of ours / bare, and of what they show."""
    rates = {
        side: np.array([one.latencies_s.size / one.window_s for one in blocks])
        for side, blocks in sides.items()
    }
    medians = {
        side: np.array([np.median(one.latencies_s) for one in blocks])
        for side, blocks in sides.items()
    }
    return {
        "throughput, ours / bare": float(np.median(rates["ours"] / rates["bare"])),
        "p50 latency, ours / bare": float(np.median(medians["ours"] / medians["bare"])),
        "p50 bare, us": 1e6 * float(np.median(medians["bare"])),
        "pairs": float(len(rates["ours"])),
    }


class _One:
    """An engine whose only request is given."""

    inputs = ()
    outputs = ()

    def __init__(self, request: Callable[[], object]) -> None:
        self._request = request

    def infer(self, inputs: Tensors) -> Tensors:
        return inputs

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Callable[[], None]]]:
        request = self._request

        def send() -> None:
            request()

        yield [send for _ in batches]

    def close(self) -> None:
        """Keep nothing."""


def _nothing() -> None:
    """Do nothing."""


def _least_work(check: Check) -> Callable[[], object]:
    """Return the smallest request: one kernel in a graph on a GPU, one addition on a CPU."""
    import torch

    x = torch.zeros(1, device=check.device)
    if check.device == "cpu":
        return lambda: x.add_(1)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        x.add_(1)
    stream.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        x.add_(1)

    def request() -> None:
        with torch.cuda.stream(stream):
            graph.replay()
        stream.synchronize()

    return request


def _quota(loop: ClosedLoop, window_s: float, *, requests: int = 1) -> Quota:
    return Quota(window_s=window_s, requests=requests, cap_s=loop.now_s() + 20.0)


def _plan(check: Check) -> Path:
    return check.folder / "plan"


def _images(check: Check, batch: int, *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    shape = (batch, 3, check.size.image, check.size.image)
    return {"inputs": np.random.default_rng(seed).standard_normal(shape, np.float32)}


def _deployment(
    name: str,
    precision: Precision,
    batch: int,
    concurrency: int,
    *,
    graphed: bool,
    mode: str = "eager",
) -> Deployment:
    """Make a point whose requests are compute alone, as a bare loop's are."""
    on_gpu = find_card() is not None
    options: dict[str, Scalar] = {"mode": mode}
    if on_gpu:
        options |= {"cuda_graph": graphed, "transfers": "exclude"}
    return Deployment(
        variant=name,
        precision=precision,
        batch_size=batch,
        concurrency=concurrency,
        options=tuple(sorted(options.items())),
    )


def _resnet(width: int) -> Any:
    """Make a residual network of three stages, ten classes and seeded weights."""
    import torch
    from torch import nn

    class Residual(nn.Module):  # type: ignore[misc,unused-ignore] # torch is Any
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.first_norm = nn.BatchNorm2d(outputs)
            self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.second_norm = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

        def forward(self, images: Any) -> Any:
            found = self.first_norm(self.first(images)).relu()
            return (self.second_norm(self.second(found)) + self.shortcut(images)).relu()

    torch.manual_seed(0)
    stages = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)]
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, 1, 1), nn.ReLU()),
        *(Residual(*stage) for stage in stages),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)),
    ).eval()


def _markdown(report: dict[str, Any]) -> str:
    found, missing = report["found"], report["missing"]
    lines = [f"# GPU check, device {report['device']}", ""]
    lines += [f"**Not available:** {name}: {reason}" for name, reason in missing.items()]
    for name in ("versions", "card", "loop_cost"):
        lines += ["", f"## {name}", ""]
        lines += [f"- {key}: {value}" for key, value in found.get(name, {}).items()]
    if "tensorrt" in found:
        lines += ["", "## tensorrt", ""]
        lines += [f"- `{json.dumps(step)}`" for step in found["tensorrt"]["steps"]]
        lines += [f"- exit code {found['tensorrt']['exit']}"]
    lines += ["", "## ours against a bare loop, in turns", ""]
    for row in found.get("against_bare", []):
        told = ", ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "model")
        lines += [f"- {row['model']}: {told}"]
    lines += ["", "## grid", ""]
    rows = found.get("grid", [])
    measured = [row for row in rows if "blocks" in row]
    lines += [f"{len(measured)} deployments measured, {len(rows) - len(measured)} could not be:"]
    lines += [
        f"- {row['variant']} {row['precision']} b{row['batch_size']} c{row['concurrency']} "
        f"{row['options']}: {row['error']}"
        for row in rows
        if "error" in row
    ]
    lines += [
        "",
        "`python scripts/gpu_table.py DIR` makes the table, where trifront is installed.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every part and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument("--tensorrt", type=Path, help="folder that TensorRT is imported from")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--budget-s", type=float, default=420, help="after which nothing begins")
    parser.add_argument("--smoke", action="store_true", help="a minute's worth of each part")
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif find_card() is None:
        parser.error("torch sees no NVIDIA GPU; `--smoke --device cpu` tries the check without")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        check = Check(
            backend=TorchBackend(no_card if arguments.device == "cpu" else find_card),
            device=arguments.device,
            size=SMOKE if arguments.smoke else FULL,
            ends_s=started + arguments.budget_s,
            tensorrt=arguments.tensorrt,
            folder=Path(folder),
        )
        for part in (versions, card, tensorrt, models, loop_cost, against_bare, grid):
            check.part(part.__name__, part)
        check.part("card_after", card)
    report = {
        "format": 1,
        "device": arguments.device,
        "seconds": time.monotonic() - started,
        "found": check.found,
        "missing": check.missing,
    }
    with (arguments.out / "blocks.npz").open("wb") as file:
        np.savez_compressed(file, **check.latencies)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (arguments.out / "report.md").write_text(_markdown(report), encoding="utf-8")
    print(arguments.out / "report.md")


if __name__ == "__main__":
    main()
