"""One code for three libraries: what is called exists in each, and what is chosen arrives."""

import ast
import contextlib
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import onnx
import pytest
import trt_models
from trt_flavours import RECORD, ada, data_centre, hopper, recorded_names, used_of, watched_rtx

from search_spaces.deployment import Deployment, Precision, Scalar
from trials.abilities import Workshop
from trials.backend import EngineSpec
from trials.backends import trt_build
from trials.backends.trt import TensorRtBackend
from trials.backends.trt_library import Library
from trials.capabilities import engine_spec
from trials.errors import TrialError, UnsupportedError

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)
VERSIONS = sorted(recorded_names())
RTX_ALONE = (  # that the code asks for, or uses in branches for RTX
    *("ComputeCapability", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy"),
)
EVERYTHING: tuple[tuple[str, Scalar], ...] = (
    ("batch_profile", "dynamic"),
    ("max_aux_streams", 2),
    ("optimization_level", 4),
    ("sparsity", True),
    ("workspace_mib", 256),
)


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    onnx.save(trt_models.cnn(), tmp_path / "cnn.onnx")
    return tmp_path / "cnn.onnx"


def spec_of(
    backend: TensorRtBackend, options: tuple[tuple[str, Scalar], ...], precision: Precision
) -> EngineSpec:
    return engine_spec(
        Deployment(variant="v", precision=precision, batch_size=4, concurrency=1, options=options),
        backend_name=backend.name,
        model_digest="0" * 64,
        capabilities=backend.capabilities(),
        environment=backend.environment(),
        largest_batch=8,
    )


def build(
    backend: TensorRtBackend,
    model: Path,
    options: tuple[tuple[str, Scalar], ...] = (),
    precision: Precision = Precision.FP32,
) -> bytes:
    shop = Workshop(tell=lambda _name, _share: None, shelf=model.parent / "shelf")
    plan = model.with_name("plan")
    backend.build_at_length(model, spec_of(backend, options, precision), plan, shop)
    return plan.read_bytes()


def build_all_ways(backend: TensorRtBackend, model: Path) -> None:
    """Build with every option at another value than its default, and what cannot be read."""
    honoured = {option.name for option in backend.capabilities().options}
    chosen = tuple(pair for pair in EVERYTHING if pair[0] in honoured)
    build(backend, model, chosen)
    build(backend, model, chosen)  # again, with the timings of the first
    (model.parent / "no.onnx").write_bytes(b"no model at all")
    with pytest.raises(UnsupportedError):
        build(backend, model.parent / "no.onnx")


def missing_in(used: set[tuple[str, str]], has: Callable[[str, str], bool]) -> list[str]:
    return sorted(f"{kind}.{name}" for kind, name in used if not has(kind, name))


def test_names_that_building_uses_are_in_rtx_as_it_is_installed(cnn: Path) -> None:
    rtx = watched_rtx()
    build_all_ways(TensorRtBackend("SM89", load=lambda: rtx), cnn)
    real = import_module("tensorrt_rtx")

    def has(kind: str, name: str) -> bool:
        return hasattr(real if kind == "module" else getattr(real, kind), name)

    assert len(used_of(rtx)) > 30
    assert missing_in(used_of(rtx), has) == []


@pytest.mark.parametrize("tag", VERSIONS)
def test_names_that_building_uses_are_in_data_centre_tensorrt(cnn: Path, tag: str) -> None:
    """Those that only the branch for RTX uses are not looked for: that branch is not taken."""
    there = data_centre(tag)
    names = recorded_names()[tag]

    build_all_ways(TensorRtBackend(load=lambda: there, find_device=ada), cnn)

    used = used_of(there)
    assert {("IBuilderConfig", "set_timing_cache"), ("ITimingCache", "combine")} <= used
    assert missing_in(used, lambda kind, name: name in names[kind]) == []


def chains_in(source: str) -> set[tuple[str, ...]]:
    """Return the attributes of names called ``trt`` and of ``….module``, as (class, name…)."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        parts: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name):
            path = [inner.id, *parts]
            at = max((path.index(name) for name in ("trt", "module") if name in path), default=-1)
            if at >= 0 and path[at + 1 :]:
                found.add(tuple(path[at + 1 :]))
    return found


def test_classes_that_the_code_names_are_in_every_version_or_in_rtx_alone() -> None:
    """Also in branches that no test takes; what only RTX has must be there, and asked for."""
    real = import_module("tensorrt_rtx")
    folder = Path(trt_build.__file__).parent
    used = {
        tuple(name for name in chain[:2] if not name.startswith("__"))  # not Python's own
        for path in folder.glob("trt*.py")
        for chain in chains_in(path.read_text(encoding="utf-8"))
        if chain[0][0].isupper()
    }

    assert ("BuilderFlag", "TF32") in used
    assert ("ComputeCapability",) in {chain[:1] for chain in used}
    for chain in used:
        assert attrgetter(".".join(chain))(real) is not None
        for tag, names in recorded_names().items():
            is_there = chain[0] in names  # else only RTX has it
            assert set(chain[1:]) <= names.get(chain[0], set(chain[1:])), (tag, chain)
            assert is_there or chain[0] in RTX_ALONE, (tag, chain)


def test_removed_call_is_caught() -> None:
    """The weakly typed networks of TensorRT 10 set their precision by flags, which 11 dropped."""
    flags = {tag: names["BuilderFlag"] for tag, names in recorded_names().items()}
    there = data_centre("v11.1")

    assert "FP16" in flags["v10.16"]
    with pytest.raises(AttributeError, match="BuilderFlag has no FP16"):
        _ = there.module.BuilderFlag.FP16


def test_record_says_where_it_is_from() -> None:
    text = RECORD.read_text(encoding="utf-8")

    assert "https://github.com/NVIDIA/TensorRT" in text
    assert '"commit"' in text


def test_flavour_is_told_by_what_it_can() -> None:
    assert not data_centre().is_rtx
    assert data_centre().targets() == ()


def settings_of(library: Library) -> set[str]:
    return {name for kind, name in used_of(library) if kind in ("IBuilderConfig", "BuilderFlag")}


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        (("max_aux_streams", 0), "max_aux_streams"),
        (("sparsity", True), "SPARSE_WEIGHTS"),
        (("workspace_mib", 256), "set_memory_pool_limit"),
    ],
)
def test_option_of_the_data_centre_flavour_is_set_when_it_is_chosen(
    cnn: Path, option: tuple[str, Scalar], setting: str
) -> None:
    plain, chosen = data_centre(), data_centre()

    build(TensorRtBackend(load=lambda: plain, find_device=ada), cnn)
    build(TensorRtBackend(load=lambda: chosen, find_device=ada), cnn, (option,))

    assert setting not in settings_of(plain)
    assert setting in settings_of(chosen)


def test_tf32_is_taken_away_from_fp32_alone(cnn: Path) -> None:
    plain, rounded = data_centre(), data_centre()

    build(TensorRtBackend(load=lambda: plain, find_device=ada), cnn)
    build(TensorRtBackend(load=lambda: rounded, find_device=ada), cnn, precision=Precision.TF32)

    assert settings_of(plain) - settings_of(rounded) == {"clear_flag", "TF32"}


def test_what_rtx_ignores_is_refused_with_the_reason_and_changes_no_byte(cnn: Path) -> None:
    """Where a later version honours one of them, this fails, and it may become an axis."""
    rtx, there = TensorRtBackend("SM89"), data_centre()
    everywhere = {option.name for option in rtx.capabilities().options}
    inert = tuple(pair for pair in EVERYTHING if pair[0] not in everywhere)

    plain = build(rtx, cnn)
    turned = build(TensorRtBackend(load=lambda: there, find_device=ada), cnn, inert)

    assert {name for name, _ in inert} == {name for name, _ in rtx.capabilities().inert}
    assert all("byte for byte" in reason for _, reason in rtx.capabilities().inert)
    assert turned == plain


def test_gpu_and_driver_are_part_of_an_engine_that_is_built_for_them() -> None:
    there = data_centre()
    environment = dict(TensorRtBackend(load=lambda: there, find_device=ada).environment())

    assert environment["device"] == "NVIDIA L4"
    assert environment["compute_capability"] == "SM89"
    assert environment["device_driver"] == "590.44"
    assert environment["tensorrt"] == "11.1"


def test_rtx_builds_for_the_gpu_of_its_machine_and_not_for_all(cnn: Path) -> None:
    """Told nothing it would build a plan for every GPU from Ampere on."""
    here = TensorRtBackend(load=watched_rtx, find_device=ada)

    assert build(here, cnn) == build(TensorRtBackend("SM89"), cnn)


def test_rtx_on_a_gpu_that_it_does_not_list_builds_for_the_current_one(cnn: Path) -> None:
    """Which needs that GPU; nobody has said whether it then works."""
    rtx = watched_rtx()
    here = TensorRtBackend(load=lambda: rtx, find_device=hopper)

    with contextlib.suppress(TrialError):
        build(here, cnn)

    assert ("ComputeCapability", "CURRENT") in used_of(rtx)


def test_data_centre_flavour_builds_for_no_gpu_that_is_not_there() -> None:
    there = data_centre()

    with pytest.raises(UnsupportedError, match="for SM89; use the GPU of this machine"):
        TensorRtBackend("SM89", load=lambda: there).capabilities()


def test_kernel_specialization_is_an_option_of_rtx_alone() -> None:
    there = data_centre()
    rtx = TensorRtBackend("SM89").capabilities()
    other = TensorRtBackend(load=lambda: there, find_device=ada).capabilities()

    option = next(one for one in rtx.options if one.name == "kernel_specialization")
    strategies = import_module("tensorrt_rtx").DynamicShapesKernelSpecializationStrategy
    assert {str(choice).upper() for choice in option.choices} == set(strategies.__members__)
    assert option.default == "eager"
    assert "kernel_specialization" in dict(other.inert)
