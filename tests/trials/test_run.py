"""One trial end to end on ONNX Runtime, with models that take milliseconds."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save_model
from real_spaces import CLASSES, FEATURES, bench_in, point, write_model, write_space

from search_spaces.deployment import Deployment, Precision
from search_spaces.files import space_from_yaml
from search_spaces.metrics import METRICS
from search_spaces.space import Constraint, Objective, SearchSpace
from trials.abilities import Workshop
from trials.backend import Capabilities, EngineSpec, Option, Scope, Tensors
from trials.backends.ort import OrtBackend
from trials.backends.ort_engine import OrtEngine
from trials.bench import Bench
from trials.errors import AbandonedError, DataError, UnsupportedError
from trials.inspection import BuildLog
from trials.outcome import Completed, Failed, Infeasible
from trials.run import run_trial, score_report


def ran(bench: Bench, deployment: Deployment) -> Completed:
    outcome = run_trial(deployment, bench, on_phase=lambda _: None)
    assert isinstance(outcome, Completed), outcome
    return outcome


def test_completed_trial_says_everything(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))
    deployment = point(batch_size=4, concurrency=2)

    outcome = ran(bench, deployment)

    assert outcome.deployment == deployment
    assert outcome.engine.variant_digest == dict(bench.facts.digests)["variant:net"]
    assert outcome.speed.requests == sum(len(block.latencies_s) for block in outcome.blocks)
    assert {block.batch_size for block in outcome.blocks} == {4}
    assert outcome.quality is not None
    assert outcome.quality.calibration is not None
    assert outcome.on_device is None  # there is none
    assert "onnxruntime" in dict(outcome.environment.facts)
    assert all(estimate.value >= 0 for estimate in outcome.metrics().values())


def test_every_cost_of_a_first_trial_is_stated(tmp_path: Path) -> None:
    costs = ran(bench_in(tmp_path, write_space(tmp_path)), point()).costs

    assert all(getattr(costs, field.name) > 0 for field in fields(costs))


def test_steps_are_told_in_their_order(tmp_path: Path) -> None:
    """Scored before it is driven, because that decides how long it is worth driving."""
    phases: list[str] = []

    run_trial(point(), bench_in(tmp_path, write_space(tmp_path)), on_phase=phases.append)

    assert phases == ["prepare", "score", "load", "measure", "memory"]


def test_engine_that_is_not_accurate_enough_is_not_measured_for_long(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    bound = Constraint(metric=METRICS["accuracy"], upper=False, bound=1.0)
    plan = replace(space.plan, target_p50=1e-9, min_blocks=8)
    wanted = replace(space, plan=plan, constraints=(bound,))

    outcome = ran(bench_in(tmp_path, wanted), point())

    assert outcome.metric("accuracy").value < 1
    assert outcome.speed.blocks == 8
    assert "decided" in outcome.flags
    assert "target_not_met" not in outcome.flags


def test_accuracy_is_scored_once_per_engine_and_not_per_deployment(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))

    first = ran(bench, point())
    second = ran(bench, point(batch_size=4, concurrency=2, threads=2))

    assert first.costs.score_s > 0
    assert second.costs.score_s == 0.0
    assert second.quality == first.quality
    assert [entry.kind for entry in bench.store.list()].count("quality") == 1


def test_int8_is_scored_on_its_own(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))
    ran(bench, point())

    quantized = ran(bench, point(precision=Precision.INT8))

    assert quantized.costs.score_s > 0


def test_report_split_is_scored_apart_from_the_search_split(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))
    searched = ran(bench, point()).quality

    verdict = score_report(point(), bench)

    assert searched is not None
    assert (searched.split, verdict.split) == ("search", "report")
    assert verdict.split_digest != searched.split_digest


def test_changed_model_never_gets_an_old_number(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    before = ran(bench_in(tmp_path, space), point())
    write_model(tmp_path / "net.onnx", seed=7)

    after = ran(bench_in(tmp_path, space), point())

    assert after.costs.score_s > 0
    assert after.engine.variant_digest != before.engine.variant_digest
    assert after.quality != before.quality


def test_measured_accuracy_is_that_of_the_model(tmp_path: Path) -> None:
    import onnxruntime

    bench = bench_in(tmp_path, write_space(tmp_path))
    split = bench.dataset.search
    session = onnxruntime.InferenceSession(
        tmp_path / "net.onnx", providers=["CPUExecutionProvider"]
    )

    accuracy = ran(bench, point()).metric("accuracy").value

    [logits] = session.run(None, {"samples": split.arrays[0][1]})
    assert accuracy == np.mean(logits.argmax(axis=1) == split.labels)


def test_answers_that_are_not_finite_are_infeasible_and_say_so(tmp_path: Path) -> None:
    model = write_model(tmp_path / "net.onnx", offset=float("nan"))

    outcome = run_trial(
        point(), bench_in(tmp_path, write_space(tmp_path, {"net": model})), on_phase=lambda _: None
    )

    assert isinstance(outcome, Infeasible)
    assert outcome.kind == "output"
    assert "NaN" in outcome.reason
    assert outcome.environment.facts


def test_precision_that_cannot_be_made_is_infeasible_not_failed(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    quantized = bench_in(tmp_path, space).prepare(point(precision=Precision.INT8)).model.path
    (tmp_path / "net.onnx").write_bytes(quantized.read_bytes())

    outcome = run_trial(
        point(precision=Precision.INT8), bench_in(tmp_path, space), on_phase=lambda _: None
    )

    assert isinstance(outcome, Infeasible)
    assert outcome.kind == "unsupported"


def test_peak_memory_grows_with_what_the_engine_holds(tmp_path: Path) -> None:
    width = 200_000  # 6 + 4 weights of 4 bytes each: 8 MB
    model = write_model(tmp_path / "net.onnx", width=width)

    outcome = ran(bench_in(tmp_path, write_space(tmp_path, {"net": model})), point())

    assert outcome.peak_memory_bytes is not None
    assert outcome.peak_memory_bytes > width * (FEATURES + CLASSES) * 4


def test_bug_in_a_trial_escapes(tmp_path: Path) -> None:
    """An outcome is a fact; a KeyError is not one."""
    bench = bench_in(tmp_path, write_space(tmp_path))

    with pytest.raises(KeyError, match="nobody"):
        run_trial(replace(point(), variant="nobody"), bench, on_phase=lambda _: None)


def test_torch_variant_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra trifront[torch]")
    safetensors = pytest.importorskip("safetensors.torch", reason="needs trifront[torch]")
    code = f"from torch import nn\n\ndef net():\n    return nn.Linear({FEATURES}, 4)\n"
    (tmp_path / "run_nets.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    safetensors.save_model(torch.nn.Linear(FEATURES, 4), tmp_path / "net.safetensors")
    variant = (
        '  - {name: net, torch: {factory: "run_nets:net", weights: net.safetensors, '
        f"input_shape: [{FEATURES}]}}}}"
    )

    bench = bench_in(tmp_path, write_space(tmp_path, variants=variant))
    outcome = ran(bench, point(batch_size=4))

    assert outcome.quality is not None
    assert outcome.engine.variant_digest == dict(bench.facts.digests)["variant:net"]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_model_of_a_fixed_batch_is_calibrated_driven_and_scored_in_that_batch(
    tmp_path: Path, precision: Precision
) -> None:
    model = write_model(tmp_path / "net.onnx", batch=3)  # divides no split
    space = write_space(tmp_path, {"net": model}, batch_sizes="[3]")

    outcome = ran(bench_in(tmp_path, space), point(precision=precision, batch_size=3))

    assert outcome.quality is not None
    assert outcome.quality.samples == 80


def test_peak_memory_is_that_of_serving_and_not_of_the_samples_in_stock(tmp_path: Path) -> None:
    """Workers hold 16 batches of 1.6 MB each, to vary the inputs; serving needs one per worker."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pool",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("batch", 3, 64, 64))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 3))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save_model(model, tmp_path / "pool.onnx")
    write_space(tmp_path, {"net": tmp_path / "pool.onnx"}, batch_sizes="[32]")
    images = np.random.default_rng(0).random((200, 3, 64, 64), np.float32)
    np.savez(tmp_path / "data.npz", inputs=images, labels=np.arange(200) % 3)
    bench = bench_in(tmp_path, space_from_yaml(tmp_path / "real.yaml"))

    outcome = ran(bench, point(batch_size=32, concurrency=2))

    assert outcome.peak_memory_bytes is not None
    assert 3.1e6 < outcome.peak_memory_bytes < 5e6  # two batches; 50 MB with the stock


@dataclass(frozen=True)
class Silent(OrtBackend):
    """A backend that cannot tell how much memory serving takes."""

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> None:
        del plan, deployment, batch, deadline_s

    def why_no_peak_memory(self, deployment: Deployment) -> str:
        return f"nobody knows that of {deployment.variant}"


def silent_bench(folder: Path, space: SearchSpace) -> Bench:
    bench = bench_in(folder, space)
    bench.backend = Silent()
    return bench


def test_backend_that_cannot_tell_its_memory_leaves_that_metric_out(tmp_path: Path) -> None:
    outcome = ran(silent_bench(tmp_path, write_space(tmp_path)), point())

    assert outcome.peak_memory_bytes is None
    assert "peak_memory_mb" not in outcome.metrics()
    with pytest.raises(KeyError):
        outcome.metric("peak_memory_mb")


def test_memory_that_is_wanted_of_a_backend_that_cannot_tell_is_refused_before_any_trial(
    tmp_path: Path,
) -> None:
    metric = METRICS["peak_memory_mb"]
    wanted = Objective(metric=metric, direction=metric.direction)
    space = replace(write_space(tmp_path), objectives=(wanted,))

    bench_in(tmp_path, space).check_meters()
    with pytest.raises(UnsupportedError, match=r"no peak_memory_mb of .*: nobody knows"):
        silent_bench(tmp_path, space).check_meters()


def test_memory_that_is_not_told_for_once_costs_one_trial_and_not_the_search(
    tmp_path: Path,
) -> None:
    metric = METRICS["peak_memory_mb"]
    wanted = Objective(metric=metric, direction=metric.direction)
    space = replace(write_space(tmp_path), objectives=(wanted,))

    outcome = run_trial(point(), silent_bench(tmp_path, space), on_phase=lambda _: None)

    assert isinstance(outcome, Failed)
    assert "the backend told no peak_memory_mb" in outcome.reason


def test_metric_that_a_model_cannot_have_is_refused_and_no_bug(tmp_path: Path) -> None:
    metric = METRICS["accuracy_top5"]  # the model has four classes
    wanted = Objective(metric=metric, direction=metric.direction)
    space = replace(write_space(tmp_path), objectives=(wanted,))

    with pytest.raises(DataError, match="accuracy_top5 says nothing about variant 'net'"):
        run_trial(point(), bench_in(tmp_path, space), on_phase=lambda _: None)


@dataclass(frozen=True)
class Slow(OrtBackend):
    """A backend that tells how far its builds are."""

    def build_at_length(
        self, model: Path, spec: EngineSpec, plan: Path, workshop: Workshop
    ) -> BuildLog:
        workshop.tell("building: kernels", 0.25)
        return self.build(model, spec, plan)


def slow_bench(folder: Path) -> Bench:
    bench = bench_in(folder, write_space(folder))
    bench.backend = Slow()
    return bench


def test_build_that_takes_long_is_told_while_the_deployment_is_prepared(tmp_path: Path) -> None:
    told: list[str] = []

    outcome = run_trial(
        point(),
        slow_bench(tmp_path),
        on_phase=told.append,
        on_progress=lambda name, share: told.append(f"{name} {share}"),
    )

    assert outcome.state == "completed"
    assert told[:3] == ["prepare", "building: kernels 0.25", "score"]


def test_trial_that_is_broken_off_while_it_builds_has_no_outcome(tmp_path: Path) -> None:
    """Whoever broke it off knows whether that was a deadline or an interruption."""
    bench = slow_bench(tmp_path)

    def stop(name: str, share: float) -> None:
        raise AbandonedError(f"{name} {share}")

    with pytest.raises(AbandonedError, match="building: kernels"):
        run_trial(point(), bench, on_phase=lambda _: None, on_progress=stop)

    assert not any(entry.kind == "engine" for entry in bench.store.list())


class Bounded(OrtBackend):
    """A backend whose engines serve every batch up to the space's largest, and no larger."""

    def capabilities(self) -> Capabilities:
        profile = Option(
            name="batch_profile",
            scope=Scope.ENGINE,
            default="fixed",
            choices=("fixed", "dynamic"),
            help="one engine for all",
        )
        honoured = super().capabilities()
        return replace(
            honoured,
            options=(*honoured.options, profile),
            batch_in_engine=True,
            dynamic_batch=("batch_profile", "dynamic"),
        )

    def load(self, plan: Path, deployment: Deployment) -> OrtEngine:
        engine = super().load(plan, deployment)
        runs = engine.infer

        def infer(inputs: Tensors) -> Tensors:
            assert all(len(array) <= 4 for array in inputs.values())
            return runs(inputs)

        engine.infer = infer  # type: ignore[method-assign] # an engine of its own
        return engine


def test_engine_for_all_batch_sizes_is_built_once_and_scored_in_none_that_is_larger(
    tmp_path: Path,
) -> None:
    space = write_space(tmp_path)  # of batch sizes 1 and 4
    opened = bench_in(tmp_path, space)
    bench = Bench(space, opened.store, backend=Bounded(), dataset=opened.dataset)
    chosen = (("batch_profile", "dynamic"), ("threads", 1))

    one, four = (ran(bench, replace(point(batch_size=size), options=chosen)) for size in (1, 4))

    assert one.engine == four.engine
    assert one.costs.build_s > 0
    assert four.costs.build_s == 0.0
