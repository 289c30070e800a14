"""Model repositories: what Triton is told, and that a real server loads and answers it."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from real_exports import Case, measured_case
from real_spaces import point, samples, write_model, write_space
from triton_server import Triton, installed_triton

from optimizer.errors import ExportError, UsageError
from optimizer.export.catalog import format_named
from optimizer.export.export import Format, write_export
from optimizer.export.format_name import FormatName, TritonBackend
from optimizer.export.manifest import Role
from optimizer.export.references_file import read_references
from optimizer.export.triton_config import TritonModel, config_text
from optimizer.export.triton_python_model import TritonPythonModel
from optimizer.verification.bundle import open_bundle
from search_spaces.deployment import Precision
from trials.backend import TensorSpec

BATCH = 4
FREE = TensorSpec(name="images", dtype="float32", shape=(None, 3, None))
MODEL = TritonModel(
    name="net",
    backend="onnxruntime",
    inputs=(FREE,),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=(None, 10)),),
    batch_size=8,
    preferred=(8,),
    queue_delay_us=700,
    instances=2,
    on_gpu=False,
    labels="labels.txt",
    graph_level=None,
    parameters=(("intra_op_thread_count", "2"),),
)


@pytest.fixture
def triton() -> Triton:
    return installed_triton()


def repository(backend: TritonBackend | None = None, *, model_name: str | None = None) -> Format:
    return format_named(FormatName.TRITON, model_name=model_name, triton_backend=backend)


def exported_case(tmp_path: Path, precision: Precision = Precision.INT8) -> Case:
    deployment = point(precision=precision, batch_size=BATCH, concurrency=2)
    return measured_case(tmp_path, deployment=deployment)


def parsed(triton: Triton, model: TritonModel, tmp_path: Path) -> Mapping[str, object]:
    (tmp_path / "config.pbtxt").write_text(config_text(model), encoding="utf-8")
    found: Mapping[str, object] = triton.parsed(tmp_path / "config.pbtxt")
    return found


def test_repository_has_the_servers_layout(tmp_path: Path) -> None:
    exported = exported_case(tmp_path).export(tmp_path / "d", repository(TritonBackend.PYTHON))

    assert [path.relative_to(tmp_path / "d").as_posix() for path in exported.files] == [
        *("README.md", "SHA256SUMS", "blocks.parquet", "manifest.json", "model.onnx"),
        *("real/1/model.onnx", "real/1/model.py", "real/config.pbtxt", "real/labels.txt"),
        *("references.npz", "space.yaml"),
    ]
    assert (tmp_path / "d/real/labels.txt").read_text(encoding="utf-8") == "0\n1\n2\n3\n"


def test_repository_is_whole_and_says_which_model_is_portable(tmp_path: Path) -> None:
    """The served int8 model is the one that engines are built from; the other is kept beside."""
    exported_case(tmp_path).export(tmp_path / "d", repository())

    bundle = open_bundle(tmp_path / "d")

    assert bundle.file(Role.SERVED) == tmp_path / "d/real/1/model.onnx"
    assert bundle.file(Role.MODEL) == tmp_path / "d/model.onnx"
    assert bundle.file(Role.ENGINE) is None


def test_configuration_is_made_of_the_deployment(tmp_path: Path) -> None:
    case = exported_case(tmp_path)
    case.export(tmp_path / "d", repository())

    text = (tmp_path / "d/real/config.pbtxt").read_text(encoding="utf-8")

    half_us = round(case.outcome.speed.latency_p50_s.value * 1e6 / 2)
    for line in (
        'name: "real"',
        'backend: "onnxruntime"',
        "max_batch_size: 4",
        "preferred_batch_size: [ 4 ]",
        f"max_queue_delay_microseconds: {max(1, half_us)}\n",
        "count: 2 kind: KIND_CPU",
        'label_filename: "labels.txt"',
    ):
        assert line in text


@pytest.mark.parametrize(
    ("classes", "lines"),
    [(("bag", "coat"), "bag\ncoat\n2\n3\n"), (("a", "b", "c", "d", "e"), "a\nb\nc\nd\n")],
    ids=["fewer folders than outputs", "more"],
)
def test_classes_are_named_as_far_as_the_data_name_them(
    tmp_path: Path, classes: tuple[str, ...], lines: str
) -> None:
    gathered = exported_case(tmp_path).gathered()
    named = replace(gathered, recorded=replace(gathered.recorded, classes=classes))

    write_export(named, repository(), tmp_path / "d", by="Ada")

    assert (tmp_path / "d/real/labels.txt").read_text(encoding="utf-8") == lines


def test_output_that_is_no_class_score_has_no_labels(tmp_path: Path) -> None:
    gathered = exported_case(tmp_path).gathered()
    [output] = gathered.recorded.outputs
    single = replace(gathered.recorded, outputs=(replace(output, shape=(None,)),))

    write_export(replace(gathered, recorded=single), repository(), tmp_path / "d", by="Ada")

    assert not (tmp_path / "d/real/labels.txt").exists()
    text = (tmp_path / "d/real/config.pbtxt").read_text(encoding="utf-8")
    assert "label_filename" not in text


def test_triton_reads_what_was_meant(triton: Triton, tmp_path: Path) -> None:
    assert parsed(triton, MODEL, tmp_path) == {
        "name": "net",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [{"name": "images", "data_type": "TYPE_FP32", "dims": ["3", "-1"]}],
        "output": [
            {
                "name": "logits",
                "data_type": "TYPE_FP32",
                "dims": ["10"],
                "label_filename": "labels.txt",
            }
        ],
        "dynamic_batching": {
            "preferred_batch_size": [8],
            "max_queue_delay_microseconds": "700",
        },
        "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
        "parameters": {"intra_op_thread_count": {"string_value": "2"}},
    }


def test_fixed_batch_is_part_of_the_shape_and_nothing_is_batched(
    triton: Triton, tmp_path: Path
) -> None:
    fixed = replace(FREE, shape=(8, 3, 4))

    found = parsed(triton, replace(MODEL, inputs=(fixed,)), tmp_path)

    assert "max_batch_size" not in found  # 0, which protobuf leaves out
    assert "dynamic_batching" not in found
    assert found["input"] == [
        {"name": "images", "data_type": "TYPE_FP32", "dims": ["8", "3", "4"]}
    ]


@pytest.mark.parametrize(
    "change", [{"batch_size": 1}, {"queue_delay_us": None}], ids=["one sample", "batch bound"]
)
def test_requests_are_kept_apart_where_there_is_nothing_to_share(
    triton: Triton, tmp_path: Path, change: dict[str, int | None]
) -> None:
    found = parsed(triton, replace(MODEL, **change), tmp_path)  # type: ignore[arg-type] # a row of the table

    assert "dynamic_batching" not in found


def test_one_number_a_sample_gets_the_dimension_that_triton_wants(
    triton: Triton, tmp_path: Path
) -> None:
    number = TensorSpec(name="class", dtype="int64", shape=(None,))

    found = parsed(triton, replace(MODEL, outputs=(number,), labels=None), tmp_path)

    assert found["output"] == [
        {"name": "class", "data_type": "TYPE_INT64", "dims": ["1"], "reshape": {}}
    ]


@pytest.mark.parametrize("name", ['quote"d', "back\\slash", "Größe\n", "image:0", "a/b"])
def test_every_name_of_a_tensor_survives(triton: Triton, tmp_path: Path, name: str) -> None:
    found = parsed(triton, replace(MODEL, inputs=(replace(FREE, name=name),)), tmp_path)

    assert found["input"] == [{"name": name, "data_type": "TYPE_FP32", "dims": ["3", "-1"]}]


def test_gpu_and_graph_level_are_told(triton: Triton, tmp_path: Path) -> None:
    found = parsed(triton, replace(MODEL, on_gpu=True, graph_level=-1), tmp_path)

    assert found["instance_group"] == [{"count": 2, "kind": "KIND_GPU"}]
    assert found["optimization"] == {"graph": {"level": -1}}


@pytest.mark.parametrize(
    ("precision", "backend"),
    [
        (Precision.FP32, TritonBackend.PYTHON),
        (Precision.INT8, TritonBackend.PYTHON),
        (Precision.INT8, TritonBackend.ONNXRUNTIME),
    ],
)
def test_real_server_answers_the_references_bit_by_bit(
    triton: Triton, tmp_path: Path, precision: Precision, backend: TritonBackend
) -> None:
    """ONNX Runtime's own backend is in no package: a stand-in runs its repository."""
    exported_case(tmp_path, precision).export(tmp_path / "d", repository(backend))
    stored = read_references(tmp_path / "d/references.npz", batch_size=BATCH)

    with triton.serving(tmp_path / "d", tmp_path) as client:
        answers = [
            client.infer("real", {"samples": stored.inputs["samples"][at : at + BATCH]})["logits"]
            for at in range(0, len(stored), BATCH)
        ]

    expected = stored.outputs["logits"]
    assert np.array_equal(np.concatenate(answers).astype(expected.dtype), expected)


def test_real_server_is_told_the_batch_and_names_classes(triton: Triton, tmp_path: Path) -> None:
    exported_case(tmp_path).export(
        tmp_path / "d", repository(TritonBackend.PYTHON, model_name="clothes")
    )
    stored = read_references(tmp_path / "d/references.npz", batch_size=BATCH)

    with triton.serving(tmp_path / "d", tmp_path) as client:
        config = client.config("clothes")
        named = client.classes("clothes", {"samples": stored.inputs["samples"][:BATCH]}, "logits")

    best = stored.outputs["logits"][:BATCH].argmax(axis=1)
    assert config["dynamic_batching"]["preferred_batch_size"] == [BATCH]
    assert [one.split(":")[1:] for one in named] == [[str(each), str(each)] for each in best]


class Tensor:
    """Triton's tensor, as far as the served model uses it."""

    def __init__(self, name: str, array: NDArray[Any]) -> None:
        self.name = name
        self.array = array

    def as_numpy(self) -> NDArray[Any]:
        """Return the array."""
        return self.array


class Response:
    """Triton's response: tensors, or an error."""

    def __init__(self, tensors: Sequence[Tensor] = (), error: str | None = None) -> None:
        self.tensors = tensors
        self.error = error


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TritonPythonModel:
    """The model as the server would make it, in this process, with a fake of Triton's module."""
    utils = ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.InferenceResponse, utils.TritonError = Tensor, Response, str  # type: ignore[attr-defined] # a fake module
    utils.get_input_tensor_by_name = lambda request, name: request[name]  # type: ignore[attr-defined] # likewise
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    (tmp_path / "1").mkdir()
    write_model(tmp_path / "1/model.onnx")
    settings = {
        "intra_op_thread_count": "1",
        "graph_optimization_level": "ORT_ENABLE_ALL",
        "spinning": "0",
    }
    parameters = {key: {"string_value": value} for key, value in settings.items()}
    config = json.dumps({"max_batch_size": BATCH, "parameters": parameters})
    model = TritonPythonModel()
    model.initialize(
        {"model_config": config, "model_repository": str(tmp_path), "model_version": "1"}
    )
    return model


def request_of(first: int, last: int) -> dict[str, Tensor]:
    return {"samples": Tensor("samples", samples(BATCH)[first:last])}


def test_requests_that_share_a_batch_get_their_own_answers(served: TritonPythonModel) -> None:
    together = served.execute([request_of(0, 1), request_of(1, 4)])

    [alone] = served.execute([request_of(0, 4)])
    answers = [one.tensors[0].array for one in together]
    assert [len(one) for one in answers] == [1, 3]
    np.testing.assert_allclose(np.concatenate(answers), alone.tensors[0].array, rtol=1e-6)


def test_batch_that_fails_tells_each_of_its_requests_why(served: TritonPythonModel) -> None:
    wrong = {"samples": Tensor("samples", np.ones((1, 5), np.float32))}

    answers = served.execute([wrong, wrong])
    served.finalize()

    assert [one.error.startswith("ONNX Runtime: ") for one in answers] == [True, True]


def test_server_refuses_a_folder_that_is_not_named_as_its_model(
    triton: Triton, tmp_path: Path
) -> None:
    """What the export must never do."""
    exported_case(tmp_path).export(tmp_path / "d", repository(TritonBackend.PYTHON))
    (tmp_path / "d/real").rename(tmp_path / "d/other")

    with (
        pytest.raises(RuntimeError, match="directory name must equal model name"),
        triton.serving(tmp_path / "d", tmp_path),
    ):
        pytest.fail("it was served")


def test_model_of_a_fixed_batch_is_served_too(triton: Triton, tmp_path: Path) -> None:
    model = write_model(tmp_path / "fixed.onnx", batch=BATCH)
    space = write_space(tmp_path, {"net": model}, batch_sizes=f"[{BATCH}]")
    case = measured_case(tmp_path, space=space, deployment=point(batch_size=BATCH))
    case.export(tmp_path / "d", repository(TritonBackend.PYTHON))
    stored = read_references(tmp_path / "d/references.npz", batch_size=BATCH)

    with triton.serving(tmp_path / "d", tmp_path) as client:
        answer = client.infer("real", {"samples": stored.inputs["samples"][:BATCH]})["logits"]

    assert np.array_equal(answer.astype(np.float32), stored.outputs["logits"][:BATCH])


def test_plan_is_served_by_tensorrt_with_its_portable_model_beside(tmp_path: Path) -> None:
    case = exported_case(tmp_path, Precision.FP32)
    gathered = case.gathered()
    planned = replace(gathered, spec=replace(gathered.spec, backend="tensorrt"))

    exported = write_export(planned, repository(), tmp_path / "d", by="Ada")

    text = (tmp_path / "d/real/config.pbtxt").read_text(encoding="utf-8")
    assert 'backend: "tensorrt"' in text
    assert "KIND_GPU" in text
    assert "parameters" not in text
    assert {tmp_path / "d/real/1/model.plan", tmp_path / "d/model.onnx"} <= set(exported.files)


@pytest.mark.parametrize("name", ["a/b", "../up", "", ".hidden", "manifest.json", "x" * 65])
def test_name_that_is_no_folder_beside_the_exports_own_files_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name of a model"):
        repository(model_name=name)


def test_engine_of_a_provider_on_a_gpu_is_not_served_by_other_settings(tmp_path: Path) -> None:
    gathered = exported_case(tmp_path, Precision.FP32).gathered()
    options = (*gathered.spec.options, ("provider", "cuda"))
    on_gpu = replace(gathered, spec=replace(gathered.spec, options=options))

    with pytest.raises(ExportError, match="of provider cuda is not written yet"):
        write_export(on_gpu, repository(), tmp_path / "d", by="Ada")

    assert not (tmp_path / "d").exists()


def test_backend_that_does_not_run_the_measured_engine_is_refused(tmp_path: Path) -> None:
    space = write_space(tmp_path)

    with pytest.raises(ExportError, match="tensorrt does not serve engines of backend 'ort'") as e:
        repository(TritonBackend.TENSORRT).refuse(space)

    assert e.value.hint == "use --triton-backend onnxruntime or python"


@pytest.mark.parametrize("form", [FormatName.TRITON, FormatName.ONNX])
def test_made_up_model_is_exported_as_a_bundle_only(tmp_path: Path, form: FormatName) -> None:
    space = replace(write_space(tmp_path), backend="fake")

    with pytest.raises(ExportError, match="there is no model to make") as caught:
        format_named(form).refuse(space)

    assert "--format bundle" in caught.value.hint
