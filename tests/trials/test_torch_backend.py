"""The ``torch`` backend on the CPU: modes, threads, refusals, and a bench over its programs."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_spaces import STORE_BYTES
from torch_fakes import residual_program

from search_spaces.catalog import space_path
from search_spaces.deployment import Deployment, Precision
from search_spaces.files import space_from_yaml
from search_spaces.space import OnnxSource, SearchSpace
from trials.backend import Engine
from trials.backends.torch_backend import TorchBackend, has_compiler
from trials.backends.torch_memory import no_card
from trials.bench import open_bench
from trials.capabilities import engine_spec
from trials.errors import FaultError, ModelError, UnsupportedError
from trials.inspection import BuildLog
from trials.models.torch_precision import convert
from trials.models.torch_program import exported, write_program
from trials.store.store import Store

torch = pytest.importorskip("torch", reason="needs the extra trifront[torch]")

BACKEND = TorchBackend(no_card)
BATCH = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
POINT = Deployment(variant="v", precision=Precision.FP32, batch_size=4, concurrency=2)


def built(model: Path, plan: Path, point: Deployment = POINT) -> BuildLog:
    spec = engine_spec(
        point,
        backend_name="torch",
        model_digest="0" * 64,
        capabilities=BACKEND.capabilities(),
        environment=BACKEND.environment(),
    )
    return BACKEND.build(model, spec, plan)


def in_mode(mode: str, **options: Any) -> Deployment:
    return replace(POINT, options=tuple(sorted({"mode": mode, **options}.items())))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of mode aot; the compiler is started once."""
    if not has_compiler():
        pytest.skip("needs a C++ compiler: install g++")
    folder = tmp_path_factory.mktemp("aot")
    built(residual_program(folder), folder / "plan", in_mode("aot"))
    return folder / "plan"


def expected() -> Any:
    from torch_fakes import residual_module

    return residual_module()(torch.from_numpy(BATCH)).detach().numpy()


@pytest.mark.timeout(400)
def test_package_answers_as_the_module_does(compiled: Path) -> None:
    engine = BACKEND.load(compiled, in_mode("aot"))

    found = engine.infer({"inputs": BATCH})["outputs"]

    np.testing.assert_allclose(found, expected(), rtol=1e-4, atol=1e-5)
    assert [spec.shape for spec in (*engine.inputs, *engine.outputs)] == [(4, 3, 8, 8), (4, 5)]


@pytest.mark.timeout(400)
def test_package_serves_as_many_lanes_at_once_as_it_was_loaded_for(compiled: Path) -> None:
    engine = BACKEND.load(compiled, in_mode("aot", threads=2))

    def work(_: int) -> int:
        with engine.lane([{"inputs": BATCH}]) as requests:
            for _ in range(20):
                requests[0]()
        return 20

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [20, 20]


@pytest.mark.timeout(400)
def test_package_takes_its_own_batch_size_only(compiled: Path) -> None:
    engine = BACKEND.load(compiled, in_mode("aot"))

    with pytest.raises(UnsupportedError, match=r"\(3, 3, 8, 8\), and the engine takes"):
        engine.infer({"inputs": BATCH[:3]})


@pytest.mark.timeout(400)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_package_is_a_fault(compiled: Path, tmp_path: Path, share: float) -> None:
    content = compiled.read_bytes()
    (tmp_path / "plan").write_bytes(content[: int(len(content) * share)])

    with pytest.raises(FaultError):
        BACKEND.load(tmp_path / "plan", in_mode("aot"))


@pytest.mark.timeout(400)
def test_package_is_described_as_one_function_of_all_operators(
    compiled: Path, tmp_path: Path
) -> None:
    spec = engine_spec(
        in_mode("aot"),
        backend_name="torch",
        model_digest="0" * 64,
        capabilities=BACKEND.capabilities(),
        environment=(),
    )

    [layer] = BACKEND.inspect(residual_program(tmp_path), spec, compiled)

    assert layer.operator == "AOTInductor"
    assert {"conv2d", "linear"} <= set(layer.fused_from)
    assert layer.parameter_bytes == 4 * (8 * 3 * 9 + 8 + 8 * 8 * 9 + 8 + 8 * 5 + 5)


@pytest.mark.timeout(400)
def test_memory_of_a_package_can_be_told(compiled: Path) -> None:
    needed = BACKEND.peak_memory(compiled, in_mode("aot"), {"inputs": BATCH}, deadline_s=200)

    assert needed is not None
    assert needed > BATCH.nbytes


@pytest.mark.timeout(400)
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler: install g++")
def test_compiled_program_answers_alike_and_is_not_compiled_again_by_requests(
    tmp_path: Path,
) -> None:
    from torch._dynamo.utils import counters

    point = in_mode("compile", threads=2)
    built(residual_program(tmp_path), tmp_path / "plan", point)
    engine = BACKEND.load(tmp_path / "plan", point)
    graphs = counters["stats"]["unique_graphs"]

    found = engine.infer({"inputs": BATCH})["outputs"]
    with engine.lane([{"inputs": BATCH}]) as requests, ThreadPoolExecutor(1) as pool:
        requests[0]()
        other = pool.submit(_through_a_lane, engine).result()

    np.testing.assert_allclose(found, expected(), rtol=1e-4, atol=1e-5)
    assert other == 3
    assert counters["stats"]["unique_graphs"] == graphs


def _through_a_lane(engine: Engine) -> int:
    with engine.lane([{"inputs": BATCH}] * 3) as requests:
        for request in requests:
            request()
        return len(requests)


def test_eager_engine_calls_common_operators_as_a_module_does_and_answers_bit_by_bit_alike(
    tmp_path: Path,
) -> None:
    from torch import nn

    from trials.backends.torch_plan import read_body

    class Transformer(nn.Module):  # type: ignore[misc] # untyped
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.mix = nn.Linear(8, 24)

        def forward(self, tokens: Any) -> Any:
            q, k, v = self.mix(self.norm(tokens)).chunk(3, -1)
            found = nn.functional.scaled_dot_product_attention(q, k, v)
            return torch.cat((found.mean(1), tokens.softmax(-1)[:, 0]), 1).transpose(0, 1) * 2.0

    module = Transformer().eval()
    plan = tmp_path / "plan.pt2"
    write_program(exported(module, shape=(5, 8), dtype="float32"), plan)

    body, _ = read_body(plan, device="cpu", is_eager=True)

    tokens = torch.rand(3, 5, 8)
    assert torch.equal(body(tokens)[0], module(tokens))
    assert "torch.ops.aten.linear" not in body.code
    assert "torch.ops.aten.softmax" not in body.code


def test_each_lane_has_the_threads_that_the_deployment_says(tmp_path: Path) -> None:
    """Whatever another engine of the process says meanwhile: OpenMP keeps it by thread."""
    program = residual_program(tmp_path)
    engines = [BACKEND.load(program, in_mode("eager", threads=count)) for count in (1, 2)]

    def seen(engine: Engine) -> int:
        with engine.lane([{"inputs": BATCH}]) as requests:
            requests[0]()
            return int(torch.get_num_threads())

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        assert [one.submit(seen, engines[0]).result(), two.submit(seen, engines[1]).result()] == [
            1,
            2,
        ]
        assert one.submit(torch.get_num_threads).result() == 1


def test_modes_that_compile_are_offered_only_with_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)

    [mode] = [one for one in BACKEND.capabilities().options if one.name == "mode"]

    assert shutil.which("g++") is None
    assert mode.choices == ("eager",)
    assert "need a C++ compiler" in mode.help


def test_program_that_mixes_types_in_bf16_is_infeasible_and_not_a_fault(tmp_path: Path) -> None:
    from torch import nn

    class Mixed(nn.Module):  # type: ignore[misc] # untyped
        def forward(self, images: Any) -> Any:
            return images @ torch.ones(4, 4, dtype=torch.float32)

    write_program(exported(Mixed(), shape=(4,), dtype="float32"), tmp_path / "mixed.pt2")

    with pytest.raises(UnsupportedError, match="leave this precision"):
        _answered_in_bf16(tmp_path / "mixed.pt2", np.ones((2, 4), np.float32))


def _answered_in_bf16(model: Path, batch: Any) -> object:
    """Exporters of some versions see the mix, others leave it to the kernels."""
    lowered = model.with_name("lowered.pt2")
    convert(model, Precision.BF16, lowered)
    return BACKEND.load(lowered, POINT).infer({"inputs": batch})


def test_machine_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # as if it were not there

    with pytest.raises(UnsupportedError, match=r"install 'trifront\[torch\]'"):
        BACKEND.capabilities()


def test_catalog_loads_no_torch() -> None:
    import subprocess

    program = (
        "import sys; from trials.backends.catalog import backend_named\n"
        "backend_named('torch'); assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-P", "-c", program], check=True, timeout=60)


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> SearchSpace:
    """The shipped space, on the CPU whatever this machine has."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    space = space_from_yaml(space_path("fashion-mnist-torch"))
    if not has_compiler():
        kept = tuple(axis for axis in space.axes if axis.name != "mode")
        space = replace(space, axes=kept)
    return space


def test_bench_prepares_a_variant_of_a_factory_in_every_precision(
    space: SearchSpace, tmp_path: Path
) -> None:
    bench = open_bench(space, Store(tmp_path / "store", limit_bytes=STORE_BYTES))
    point = Deployment(variant="cnn-w16", precision=Precision.FP32, batch_size=8, concurrency=1)

    full = bench.prepare(point)
    half = bench.prepare(replace(point, precision=Precision.BF16))
    again = bench.prepare(replace(point, batch_size=64))

    assert full.variant_digest == half.variant_digest == full.model.sha256
    assert half.engine.size_bytes < 0.7 * full.engine.size_bytes
    assert again.engine.key == full.engine.key
    assert again.build_s == 0.0


def test_onnx_variant_is_refused_in_one_line(space: SearchSpace, tmp_path: Path) -> None:
    onnx = OnnxSource(name="linear", path=tmp_path / "linear.onnx")
    mixed = replace(space, variants=(*space.variants, onnx))

    with pytest.raises(ModelError, match=r"variants\.linear: backend 'torch' does not run ONNX"):
        open_bench(mixed, Store(tmp_path / "store", limit_bytes=STORE_BYTES))


def test_int8_is_refused_with_what_to_use_instead(space: SearchSpace, tmp_path: Path) -> None:
    from search_spaces.errors import SpaceError

    axes = tuple(
        replace(axis, values=(Precision.INT8,)) if axis.name == "precision" else axis
        for axis in space.axes
    )

    with pytest.raises(SpaceError, match="does not quantize torch programs; use backend ort"):
        open_bench(replace(space, axes=axes), Store(tmp_path / "store", limit_bytes=STORE_BYTES))
