"""How far a build is, and breaking it off; true builds where TensorRT for RTX is installed."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import trt_models

from search_spaces.deployment import Deployment, Precision
from trials.abilities import Workshop
from trials.backend import EngineSpec
from trials.backends.trt import TensorRtBackend
from trials.backends.trt_progress import Phases, Watch
from trials.capabilities import engine_spec

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)


def test_step_of_an_inner_phase_counts_as_part_of_the_outer_one() -> None:
    phases = Phases()

    phases.start("building", None, 4)
    phases.step("building", 0)
    phases.start("tactics", "building", 2)
    phases.step("tactics", 0)

    assert phases.name == "tactics"
    assert phases.share == pytest.approx((1 + 1 / 2) / 4)


def test_share_never_falls_when_a_phase_ends_before_its_step_is_told() -> None:
    phases = Phases()
    phases.start("building", None, 2)
    phases.start("graph", "building", 1)
    phases.step("graph", 0)
    before = phases.share

    phases.finish("graph")

    assert phases.share == before == pytest.approx(1 / 2)


def test_phases_that_are_not_known_or_have_no_steps_do_no_harm() -> None:
    phases = Phases()

    phases.finish("never begun")
    phases.start("empty", None, 0)
    phases.step("never begun", 0)

    assert 0.0 <= phases.share <= 1.0


class Module:
    """What a monitor is made of."""

    class IProgressMonitor:
        """Its calls are the builder's."""


def ticking(*seconds: float) -> Callable[[], float]:
    ticks: Iterator[float] = iter(seconds)
    return lambda: next(ticks)


def test_owner_is_told_four_times_a_second_and_no_more() -> None:
    told: list[tuple[str, float]] = []
    shop = Workshop(tell=lambda name, share: told.append((name, share)), shelf=Path())
    monitor = Watch(shop, clock=ticking(1.0, 1.0, 1.1, 1.2, 1.25, 1.25)).monitor(Module)

    monitor.phase_start("kernels", None, 4)
    going = [monitor.step_complete("kernels", step) for step in range(4)]
    monitor.phase_finish("kernels")

    assert going == [True] * 4
    assert told == [("building: kernels", 0.25), ("building: kernels", 1.0)]


def test_what_the_owner_raises_ends_the_build_and_is_told_once() -> None:
    told: list[str] = []

    def tell(name: str, _share: float) -> None:
        told.append(name)
        raise SystemExit("nobody is left")

    watch = Watch(Workshop(tell=tell, shelf=Path()), clock=ticking(1.0, 1.0, 2.0))
    monitor = watch.monitor(Module)

    monitor.phase_start("kernels", None, 4)

    assert not monitor.step_complete("kernels", 0)
    assert not monitor.step_complete("kernels", 1)
    assert isinstance(watch.raised, SystemExit)
    assert told == ["building: kernels"]


@pytest.fixture
def transformer(tmp_path: Path) -> Path:
    onnx.save(trt_models.transformer(), tmp_path / "transformer.onnx")
    return tmp_path / "transformer.onnx"


def spec_of(backend: TensorRtBackend) -> EngineSpec:
    return engine_spec(
        Deployment(variant="v", precision=Precision.FP32, batch_size=4, concurrency=1),
        backend_name=backend.name,
        model_digest="0" * 64,
        capabilities=backend.capabilities(),
        environment=backend.environment(),
    )


@needs_rtx
def test_true_build_tells_how_far_it_is(transformer: Path, tmp_path: Path) -> None:
    backend = TensorRtBackend("SM89")
    told: list[tuple[str, float]] = []
    shop = Workshop(tell=lambda name, share: told.append((name, share)), shelf=tmp_path / "shelf")

    backend.build_at_length(transformer, spec_of(backend), tmp_path / "plan", shop)

    shares = [share for _, share in told]
    assert told[0][0].startswith("building: ")
    assert shares == sorted(shares)
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert not (tmp_path / "shelf").exists()  # TensorRT for RTX keeps no timings


@needs_rtx
def test_true_build_that_is_broken_off_leaves_nothing_and_the_next_one_works(
    transformer: Path, tmp_path: Path
) -> None:
    backend = TensorRtBackend("SM89")

    def stop(name: str, share: float) -> None:
        raise InterruptedError(f"{name} {share}")

    shop = Workshop(tell=stop, shelf=tmp_path / "shelf")
    with pytest.raises(InterruptedError, match="building"):
        backend.build_at_length(transformer, spec_of(backend), tmp_path / "plan", shop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["transformer.onnx"]

    backend.build(transformer, spec_of(backend), tmp_path / "plan")
    assert (tmp_path / "plan").stat().st_size > 1000
