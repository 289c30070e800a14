from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.files import space_from_yaml
from search_spaces.space import Axis, MeasuringPlan, OnnxSource, SearchSpace, TorchSource


def test_what_is_not_written_gets_its_default(
    fake: str, read: Callable[[str], SearchSpace]
) -> None:
    space = read(fake)

    assert space.axes == (
        Axis(name="variant", values=("small", "wide")),
        Axis(name="precision", values=("fp32",)),
        Axis(name="batch_size", values=(1,)),
        Axis(name="concurrency", values=(1,)),
    )
    assert [each.metric.name for each in space.objectives] == [
        "latency_p99_ms",
        "throughput_sps",
        "accuracy",
    ]
    assert space.plan == MeasuringPlan()


def test_axes_come_in_one_order_however_they_were_written(
    fake: str, read: Callable[[str], SearchSpace]
) -> None:
    space = read(
        f"{fake}axes:\n  threads: [4, 1]\n  graphs: [true, false]\n  mode: [b, a]\n"
        "  batch_size: [8, 2, 4]\n  precision: [int8, fp32]\n"
    )

    assert [axis.name for axis in space.axes[4:]] == ["graphs", "mode", "threads"]
    assert space.axis("threads").values == (1, 4)
    assert space.axis("graphs").values == (False, True)
    assert space.axis("mode").values == ("a", "b")
    assert space.axis("batch_size").values == (2, 4, 8)
    assert space.axis("precision").values == ("fp32", "int8")


def test_variant_axis_may_leave_variants_out(ort: str, read: Callable[[str], SearchSpace]) -> None:
    """A variant that is left out is not looked for either."""
    text = ort.replace("[{", "[{name: huge, onnx: absent.onnx}, {")

    space = read(f"{text}axes: {{variant: [small]}}\n")

    assert [variant.name for variant in space.variants] == ["small"]


def test_paths_start_at_the_folder_of_the_file(
    ort: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "spaces").mkdir()
    path = folder / "spaces" / "space.yaml"
    path.write_text(ort.replace(": small.", ": ../small."))
    for name in ("c", "s", "r"):
        (folder / "spaces" / f"{name}.npz").touch()
    monkeypatch.chdir(folder)

    space = space_from_yaml(Path("spaces/space.yaml"))

    found = space.variants[0]
    assert isinstance(found, OnnxSource)
    assert found.path.is_absolute()
    assert found.path.samefile(folder / "small.onnx")


def test_torch_variant_is_read_with_its_factory(
    ort: str, folder: Path, read: Callable[[str], SearchSpace]
) -> None:
    torch = (
        "torch: {factory: 'models.zoo:small', weights: w.safetensors, input_shape: [1, 28, 28]}"
    )

    space = read(ort.replace("onnx: small.onnx", torch))

    assert space.variants == (
        TorchSource(
            name="small",
            factory="models.zoo:small",
            weights=folder / "w.safetensors",
            input_shape=(1, 28, 28),
        ),
    )


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("axes: {variant: [smal]}", "axes.variant[0]: there is no variant 'smal'; did you mean"),
        ("measure: {block_s: 2}", "measure.max_s: 10 s are too short for 8 blocks of 2 s"),
        ("measure: {deadline_s: 5}", "measure.deadline_s: 5 s would kill a trial"),
        ("rules: ['thread < 2']", "rules[0]: rule 'thread < 2' names no axis"),
        ("rules: ['1 < 2', 'x']", "rules[0]: rule '1 < 2' names no axis"),
        (
            "rules: [\"precision != 'fp61'\"]",
            "rules[0]: rule \"precision != 'fp61'\": precision is",
        ),
        ("rules: [\"variant != 'smal'\"]", "variant is never 'smal'; did you mean 'small'?"),
        ("rules: [\"batch_size != 'x'\"]", "batch_size is never 'x'"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(
    fake: str, complaint: Callable[[str], str], added: str, said: str
) -> None:
    assert said in complaint(f"{fake}{added}\n")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: wide", "name: small", "variants[1].name: 'small' stands twice"),
        (
            ", fake: {work_ms: 1, accuracy: 0.95, size_mb: 90}",
            "",
            "has no model; give exactly one",
        ),
        ("fake: {work_ms: 1,", "onnx: a.onnx, fake: {work_ms: 1,", "has both onnx and fake"),
        (
            "backend: fake",
            "backend: ort\ntask: {data: {path: s.npz}}",
            "only numbers for the fake",
        ),
        (
            "fake: {work_ms: 1, accuracy: 0.95, size_mb: 90}",
            "onnx: small.onnx",
            "variants[1].onnx: 'wide' is a model, and backend: fake runs none",
        ),
    ],
)
def test_variants_that_the_backend_cannot_run_are_refused(
    fake: str, complaint: Callable[[str], str], *, old: str, new: str, said: str
) -> None:
    assert said in complaint(fake.replace(old, new, 1))


def test_rule_may_speak_of_a_precision_that_is_not_searched_tonight(
    fake: str, read: Callable[[str], SearchSpace]
) -> None:
    space = read(f"{fake}rules: [\"precision != 'int8' or batch_size > 4\"]\n")

    assert sum(1 for _ in space.deployments()) == 2
