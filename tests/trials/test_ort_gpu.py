"""Providers of ONNX Runtime on a GPU: had or refused, never fallen back from in silence."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from inspect import signature
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from gpu_scripted import ScriptedGpu
from numpy.typing import NDArray
from nvml_fake import MadeUpCard, MadeUpNvml
from ort_gpu_fake import CARD, OrtOnGpu, ort_on_gpu, plugin_named
from real_spaces import bench_in, point, write_space

from search_spaces.deployment import Deployment, Precision, Scalar
from search_spaces.files import space_from_yaml
from search_spaces.metrics import METRICS
from search_spaces.space import Objective
from trials.abilities import RunsOnGpu
from trials.backend import EngineSpec, Option
from trials.backends.ort import OrtBackend
from trials.backends.ort_engine import OrtEngine
from trials.backends.ort_providers import Provider, Providers, refuse_fallback
from trials.backends.ort_session import opened, serving_options
from trials.bench import Bench
from trials.capabilities import batch_in_engine, engine_spec
from trials.errors import FaultError, UnsupportedError
from trials.machine.nvml import Card, first_card, why_no_energy
from trials.measurement import OnDevice
from trials.outcome import Completed, Failed, Infeasible
from trials.run import run_trial

Images = Callable[[int], NDArray[np.float32]]


def deployed(precision: Precision = Precision.FP32, **options: Scalar) -> Deployment:
    return Deployment(
        variant="v",
        precision=precision,
        batch_size=4,
        concurrency=1,
        options=tuple(sorted(options.items())),
    )


def spec_of(backend: OrtBackend, deployment: Deployment) -> EngineSpec:
    return engine_spec(
        deployment,
        backend_name="ort",
        model_digest="0" * 64,
        capabilities=backend.capabilities(),
        environment=backend.environment(),
    )


def built(backend: OrtBackend, model: Path, deployment: Deployment) -> Path:
    plan = model.with_name("plan")
    backend.build(model, spec_of(backend, deployment), plan)
    return plan


def option_of(backend: OrtBackend, name: str) -> Option:
    return next(one for one in backend.capabilities().options if one.name == name)


def without_gpu() -> Card:
    raise UnsupportedError("no NVIDIA GPU: no driver answers")


def test_engine_on_the_cpu_keeps_the_identity_that_it_had() -> None:
    """Engines were stored before there was a provider, which may not change their keys."""
    plain = spec_of(OrtBackend(), deployed())
    beside = spec_of(ort_on_gpu(), deployed())
    named = spec_of(OrtBackend(), deployed(provider="cpu", transfers="include", threads=2))

    assert plain == beside == named
    assert plain.options == (("graph_optimization", "all"),)
    assert [name for name, _ in plain.environment] == ["cpu", "cpu_flags", "onnxruntime", "recipe"]
    assert plain.batch_size is None


def test_engine_on_a_gpu_is_of_its_provider_and_its_gpu() -> None:
    spec = spec_of(ort_on_gpu(), deployed(provider="cuda"))

    assert dict(spec.options)["provider"] == "cuda"
    facts = dict(spec.environment)
    assert facts["provider.gpu"] == "NVIDIA H100"
    assert facts["provider.gpu_driver"] == "580.1"
    assert facts["provider.compute_capability"] == "9.0"
    assert spec.batch_size is None


def test_facts_are_those_of_the_gpu_that_sessions_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that CUDA shows, which need not be the first on the bus."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    nvml = MadeUpNvml(MadeUpCard(), MadeUpCard(uuid="GPU-2222", name="NVIDIA L4"))
    providers = Providers(
        library=OrtOnGpu, plugin=lambda: None, gpu=lambda: first_card(lambda: nvml)
    )

    assert dict(providers.facts)["gpu"] == "NVIDIA L4"
    assert signature(Providers).parameters["gpu"].default is first_card


@pytest.mark.parametrize("provider", ["tensorrt", "nv-tensorrt-rtx"])
def test_compiled_engine_serves_one_batch_size(provider: str) -> None:
    capabilities = ort_on_gpu(plugin=plugin_named("x")).capabilities()

    assert batch_in_engine(deployed(provider=provider), capabilities) == 4
    assert batch_in_engine(deployed(provider="cuda"), capabilities) is None


def test_wheel_for_the_cpu_says_which_one_to_install() -> None:
    """The real library of this environment, on a machine that is said to have a GPU."""
    backend = OrtBackend(Providers(gpu=lambda: CARD, plugin=lambda: None))

    refusals = dict(option_of(backend, "provider").refusals)

    assert "has no CUDAExecutionProvider: pip uninstall onnxruntime" in refusals["cuda"]
    assert "onnxruntime-gpu" in refusals["tensorrt"]
    assert "pip install onnxruntime-ep-nv-tensorrt-rtx" in refusals["nv-tensorrt-rtx"]
    assert option_of(backend, "provider").honoured == ("cpu",)
    assert option_of(backend, "transfers").honoured == ("include",)


def test_machine_without_a_gpu_says_so_beside() -> None:
    library = OrtOnGpu(available=["CPUExecutionProvider"])
    backend = OrtBackend(Providers(library=lambda: library, plugin=lambda: None, gpu=without_gpu))

    refusals = dict(option_of(backend, "provider").refusals)

    assert refusals["cuda"].startswith("no NVIDIA GPU: no driver answers; and the installed")


def test_provider_that_the_library_has_needs_a_gpu_too() -> None:
    backend = OrtBackend(Providers(library=OrtOnGpu, plugin=lambda: None, gpu=without_gpu))

    assert dict(option_of(backend, "provider").refusals)["cuda"] == (
        "no NVIDIA GPU: no driver answers"
    )
    assert all(not name.startswith("provider.") for name, _ in backend.environment())


def test_provider_that_is_not_here_is_refused_at_the_engine_too(
    residual_model: Path, tmp_path: Path
) -> None:
    backend = OrtBackend(Providers(gpu=without_gpu, plugin=lambda: None))

    with pytest.raises(UnsupportedError, match="provider cuda: no NVIDIA GPU"):
        built(backend, residual_model, deployed(provider="cuda"))
    with pytest.raises(UnsupportedError, match="provider cuda: no NVIDIA GPU"):
        backend.load(tmp_path / "plan", deployed(provider="cuda"))


def test_plan_for_cuda_is_the_model_and_no_graph_of_the_cpu(
    residual_model: Path, images: Images
) -> None:
    backend = ort_on_gpu()

    plan = built(backend, residual_model, deployed(provider="cuda"))

    assert plan.read_bytes() == residual_model.read_bytes()
    engine = backend.load(plan, deployed(provider="cuda"))
    on_cpu = OrtBackend().load(built(OrtBackend(), residual_model, deployed()), deployed())
    batch = {"images": images(4)}
    np.testing.assert_allclose(
        engine.infer(batch)["logits"], on_cpu.infer(batch)["logits"], atol=1e-5
    )


@pytest.mark.parametrize(
    ("precision", "told"), [(Precision.FP32, "0"), (Precision.FP16, "0"), (Precision.TF32, "1")]
)
def test_fp32_on_cuda_is_not_tf32_unless_it_is_asked_for(
    residual_model: Path, precision: Precision, told: str
) -> None:
    """The provider rounds products to tf32 by default."""
    library = OrtOnGpu()
    backend = ort_on_gpu(library)

    built(backend, residual_model, deployed(precision, provider="cuda"))

    assert library.asked == [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": told})]


def test_tf32_is_of_cuda_alone(residual_model: Path) -> None:
    assert Precision.TF32 in ort_on_gpu().capabilities().precisions
    assert (
        Precision.TF32
        not in OrtBackend(Providers(gpu=without_gpu, plugin=lambda: None))
        .capabilities()
        .precisions
    )
    with pytest.raises(UnsupportedError, match="does not build tf32"):
        built(ort_on_gpu(), residual_model, deployed(Precision.TF32))


def test_provider_that_could_not_be_set_up_is_told_from_one_that_was(
    residual_model: Path,
) -> None:
    """As ONNX Runtime does where CUDA is missing: the session is opened, on the CPU."""
    backend = ort_on_gpu(OrtOnGpu(drops=True))

    with pytest.raises(UnsupportedError, match="fell back to CPUExecutionProvider: CUDAExec"):
        built(backend, residual_model, deployed(provider="cuda"))


def test_operators_that_a_provider_leaves_to_the_cpu_are_named(residual_model: Path) -> None:
    backend = ort_on_gpu(OrtOnGpu(strays=["GlobalAveragePool", "Gemm"]))

    with pytest.raises(UnsupportedError, match=r"leaves \d operators to others \(GlobalAverageP"):
        built(backend, residual_model, deployed(provider="cuda", graph_optimization="disable"))
    assert not residual_model.with_name("plan").exists()


def test_fallback_is_seen_when_an_engine_is_loaded_too(residual_model: Path) -> None:
    """On another machine, or after an update of a driver."""
    plan = built(ort_on_gpu(), residual_model, deployed(provider="cuda"))

    with pytest.raises(UnsupportedError, match="leaves 1 operators"):
        ort_on_gpu(OrtOnGpu(strays=["Gemm", "FusedGemm"])).load(plan, deployed(provider="cuda"))


def test_assignment_is_what_the_real_library_recorded(residual_model: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(
        str(residual_model), options, providers=["CPUExecutionProvider"]
    )

    refuse_fallback(session, "CPUExecutionProvider")
    with pytest.raises(UnsupportedError, match="fell back to CPUExecutionProvider"):
        refuse_fallback(session, "CUDAExecutionProvider")


def test_transfers_decide_where_requests_are_bound(residual_model: Path, images: Images) -> None:
    library = OrtOnGpu()
    backend = ort_on_gpu(library)
    plan = built(backend, residual_model, deployed(provider="cuda"))

    for transfers, devices in (("include", []), ("exclude", ["cuda:0"] * 2)):
        engine = backend.load(plan, deployed(provider="cuda", transfers=transfers))
        library.devices.clear()
        with engine.lane([{"images": images(4)}]) as requests:
            requests[0]()
        assert library.devices == devices
        engine.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"provider": "cuda", "threads": 2}, "threads is of the CPU and means nothing"),
        ({"provider": "cuda", "spinning": False}, "add the rule provider == 'cpu' or spinning =="),
        ({"transfers": "exclude"}, "the CPU has no transfers to leave out"),
    ],
)
def test_values_that_would_give_one_deployment_two_names_are_refused(
    residual_model: Path, options: dict[str, Scalar], said: str
) -> None:
    backend = ort_on_gpu()
    deployment = replace(deployed(), options=tuple(sorted(options.items())))
    plan = built(backend, residual_model, deployment)

    with pytest.raises(UnsupportedError, match=said):
        backend.load(plan, deployment)


def test_compiling_provider_saves_an_engine_of_one_batch(
    residual_model: Path, images: Images
) -> None:
    library = OrtOnGpu()
    backend = ort_on_gpu(library)
    deployment = deployed(Precision.FP16, provider="tensorrt")

    plan = built(backend, residual_model, deployment)

    name, settings = library.asked[0]
    assert name == "TensorrtExecutionProvider"
    assert (settings["trt_fp16_enable"], settings["trt_int8_enable"]) == ("1", "0")
    engine = backend.load(plan, deployment)
    assert engine.inputs[0].shape == (4, 3, 8, 8)
    assert engine.infer({"images": images(4)})["logits"].shape == (4, 5)
    with pytest.raises(UnsupportedError, match="does not take inputs of this shape"):
        engine.infer({"images": images(2)})


@pytest.mark.parametrize("override", ["", "1"])
def test_fp32_that_would_be_tf32_is_refused(
    residual_model: Path, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)

    with pytest.raises(UnsupportedError, match="start trifront with NVIDIA_TF32_OVERRIDE=0"):
        built(ort_on_gpu(), residual_model, deployed(provider="tensorrt"))


@pytest.mark.parametrize(("override", "capability"), [("0", "9.0"), ("", "7.5")])
def test_fp32_is_built_where_there_is_no_tf32(
    residual_model: Path, monkeypatch: pytest.MonkeyPatch, override: str, capability: str
) -> None:
    """Cards before Ampere have none, and the variable takes it away from the others."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    backend = ort_on_gpu(card=replace(CARD, compute_capability=capability))

    assert built(backend, residual_model, deployed(provider="tensorrt")).is_file()


def test_tf32_that_would_be_fp32_is_refused(
    residual_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")

    with pytest.raises(UnsupportedError, match="makes fp32 of tf32"):
        built(ort_on_gpu(), residual_model, deployed(Precision.TF32, provider="cuda"))


def test_compiling_provider_needs_a_batch_that_it_can_fix(
    residual_model: Path, tmp_path: Path
) -> None:
    model = onnx.load_model(residual_model)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save_model(model, tmp_path / "free.onnx")

    with pytest.raises(UnsupportedError, match="'images' has a free dimension that is not its"):
        built(ort_on_gpu(), tmp_path / "free.onnx", deployed(Precision.FP16, provider="tensorrt"))


def test_compiling_provider_that_saves_nothing_is_a_fault(
    residual_model: Path,
) -> None:
    backend = ort_on_gpu(OrtOnGpu(saves=False))

    with pytest.raises(FaultError, match="saved no engine"):
        built(backend, residual_model, deployed(Precision.FP16, provider="tensorrt"))


def test_rtx_provider_is_registered_once_and_chosen_by_device(residual_model: Path) -> None:
    """The CPU's own device stands in for the GPU's, so that the calls are the real library's."""
    library = OrtOnGpu(available=["CPUExecutionProvider"])
    providers = Providers(
        library=lambda: library,
        plugin=lambda: plugin_named("CPUExecutionProvider"),
        gpu=lambda: CARD,
    )

    sessions = [
        providers.opened(
            str(residual_model),
            onnxruntime.SessionOptions(),
            provider=Provider.RTX,
            precision=Precision.FP16,
        )
        for _ in range(2)
    ]

    assert [one.get_providers()[0] for one in sessions] == ["CPUExecutionProvider"] * 2
    assert library.registered == [("CPUExecutionProvider", "ep.so")]


def test_rtx_provider_that_takes_no_gpu_says_so(residual_model: Path) -> None:
    backend = ort_on_gpu(plugin=plugin_named("NvTensorRTRTXExecutionProvider"))

    with pytest.raises(UnsupportedError, match="takes none of this machine's GPUs"):
        built(backend, residual_model, deployed(Precision.FP16, provider="nv-tensorrt-rtx"))


def test_activations_stay_signed_for_a_gpu(residual_model: Path, tmp_path: Path) -> None:
    """Unsigned ones are for the CPU's kernels."""
    backend = ort_on_gpu()
    spec = spec_of(backend, deployed(Precision.INT8, provider="cuda"))

    assert not backend.rewrite(residual_model, spec, tmp_path / "out")


def test_memory_of_a_gpu_is_not_told(residual_model: Path, images: Images) -> None:
    backend = ort_on_gpu()
    plan = built(backend, residual_model, deployed(provider="cuda"))

    told = backend.peak_memory(
        plan, deployed(provider="cuda"), {"images": images(4)}, deadline_s=1
    )

    assert told is None


def test_energy_is_metered_on_a_gpu_alone() -> None:
    backend = ort_on_gpu()

    assert "CPU" in backend.why_no_energy(deployed())
    assert backend.why_no_energy(deployed(provider="cuda")) == why_no_energy()


def test_engine_on_a_gpu_is_watched_where_it_can_be_read(residual_model: Path) -> None:
    backend = ort_on_gpu()
    deployment = deployed(provider="cuda")
    engine = backend.load(built(backend, residual_model, deployment), deployment)

    assert isinstance(engine, RunsOnGpu)
    assert engine.transfers == "include"
    with engine.gpu() as source:
        assert (source is None) == bool(why_no_energy())


def test_engine_on_the_cpu_has_no_gpu(residual_model: Path) -> None:
    backend = OrtBackend()

    engine = backend.load(built(backend, residual_model, deployed()), deployed())

    assert engine.transfers is None
    with engine.gpu() as source:
        assert source is None


@pytest.mark.gpu
@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "nv-tensorrt-rtx"])
def test_provider_of_a_real_gpu_answers_as_the_cpu_does(
    residual_model: Path, images: Images, provider: str
) -> None:
    backend = OrtBackend()
    reason = dict(option_of(backend, "provider").refusals).get(provider)
    if reason:
        pytest.skip(reason)
    if provider != "cuda" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
        pytest.skip("fp32 of a compiling provider wants NVIDIA_TF32_OVERRIDE=0 from the start")
    deployment = deployed(provider=provider)
    plan = built(backend, residual_model, deployment)
    batch = {"images": images(4)}

    engine = backend.load(plan, deployment)
    found = engine.infer(batch)["logits"]
    with engine.lane([batch]) as requests:
        for _ in range(10):
            requests[0]()

    cpu = backend.load(built(backend, residual_model, deployed()), deployed())
    np.testing.assert_allclose(found, cpu.infer(batch)["logits"], atol=1e-2)
    assert replace(deployment, options=()) == deployed()


def bench_on_gpu(folder: Path, library: OrtOnGpu) -> Bench:
    plain = bench_in(folder, write_space(folder))
    return Bench(plain.space, plain.store, backend=ort_on_gpu(library), dataset=plain.dataset)


def on_cuda(transfers: str) -> Deployment:
    return replace(point(), options=(("provider", "cuda"), ("transfers", transfers)))


@pytest.mark.parametrize("transfers", ["include", "exclude"])
def test_trial_on_a_gpu_tells_all_but_memory(tmp_path: Path, transfers: str) -> None:
    bench = bench_on_gpu(tmp_path, OrtOnGpu())

    outcome = run_trial(on_cuda(transfers), bench, on_phase=lambda _: None)

    assert isinstance(outcome, Completed), outcome
    assert outcome.peak_memory_bytes is None
    assert "peak_memory_mb" not in outcome.metrics()
    assert outcome.on_device == OnDevice(transfers=transfers, uses_graphs=False)
    assert outcome.quality is not None
    assert outcome.speed.requests > 0
    assert dict(outcome.environment.facts)["provider.gpu"] == "NVIDIA H100"


def test_bound_on_memory_is_refused_before_any_trial_where_a_provider_runs_on_a_gpu(
    tmp_path: Path,
) -> None:
    """The first trial there would be measured in full, and then the search would end."""
    plain = bench_in(tmp_path, write_space(tmp_path))
    path = tmp_path / "real.yaml"
    path.write_text(
        path.read_text().replace("axes:\n", "axes:\n  provider: [cpu, cuda]\n")
        + 'constraints: ["peak_memory_mb <= 100"]\n'
    )
    bench = Bench(space_from_yaml(path), plain.store, backend=ort_on_gpu(), dataset=plain.dataset)

    with pytest.raises(UnsupportedError, match=r"no peak_memory_mb of .*provider=cuda"):
        bench.check_meters()


class Metered(OrtBackend):
    """Engines whose GPU has a counter that shows nothing, for once."""

    def load(self, plan: Path, deployment: Deployment) -> OrtEngine:
        gpu = ScriptedGpu()
        return OrtEngine(
            opened(str(plan), serving_options(deployment)), meters=lambda: nullcontext(gpu)
        )


def test_energy_that_is_not_told_for_once_costs_one_trial_and_not_the_search(
    tmp_path: Path,
) -> None:
    metric = METRICS["energy_per_sample_mj"]
    wanted = Objective(metric=metric, direction=metric.direction)
    plain = bench_in(tmp_path, replace(write_space(tmp_path), objectives=(wanted,)))
    bench = Bench(plain.space, plain.store, backend=Metered(), dataset=plain.dataset)

    outcome = run_trial(point(), bench, on_phase=lambda _: None)

    assert isinstance(outcome, Failed), outcome
    assert "told no energy_per_sample_mj" in outcome.reason


def test_trial_that_would_fall_back_is_infeasible_and_says_why(tmp_path: Path) -> None:
    bench = bench_on_gpu(tmp_path, OrtOnGpu(strays=["Relu", "Gemm", "MatMul", "FusedGemm"]))

    outcome = run_trial(on_cuda("include"), bench, on_phase=lambda _: None)

    assert isinstance(outcome, Infeasible)
    assert outcome.kind == "unsupported"
    assert "CUDAExecutionProvider leaves" in outcome.reason


def test_engines_of_two_providers_do_not_share_an_entry_of_the_store(tmp_path: Path) -> None:
    bench = bench_on_gpu(tmp_path, OrtOnGpu())

    first, second = bench.prepare(point()), bench.prepare(on_cuda("include"))

    assert first.engine.key != second.engine.key
    assert bench_in(tmp_path, bench.space).prepare(point()).engine.key == first.engine.key
