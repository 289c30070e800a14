"""Programs of torch: exported whole, answered alike, read without unpickling."""

import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from torch_fakes import residual_module, residual_program

from search_spaces.deployment import Precision
from trials.errors import ModelError, UnsupportedError
from trials.models.torch_precision import convert, converter_versions
from trials.models.torch_program import (
    body_of,
    exported,
    program_signature,
    read_program,
    reexported,
    signature_of,
    write_program,
)

torch = pytest.importorskip("torch", reason="needs the extra trifront[torch]")

SHIPPED = Path("search_spaces/shipped/fashion_mnist").resolve()


def images(count: int) -> Any:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def answers(path: Path, inputs: Any) -> Any:
    with torch.inference_mode():
        return body_of(read_program(path))(inputs)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_program_answers_as_its_module_does(tmp_path: Path, batch_size: int) -> None:
    program = residual_program(tmp_path)

    [answer] = answers(program, images(batch_size))

    expected = residual_module()(images(batch_size)).detach()
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)  # sums in other orders


def test_program_says_its_inputs_and_outputs(tmp_path: Path) -> None:
    signature = program_signature(residual_program(tmp_path))

    given, made = signature.inputs[0], signature.outputs[0]
    assert (given.name, given.dtype, given.shape) == ("inputs", "float32", (None, 3, 8, 8))
    assert (made.name, made.dtype, made.shape) == ("outputs", "float32", (None, 5))
    assert signature.batch_size is None


def test_several_outputs_are_numbered_in_the_modules_order() -> None:
    from torch import nn

    class Two(nn.Module):  # type: ignore[misc] # untyped
        def forward(self, images: Any) -> Any:
            return {"sum": images.sum((1, 2)), "kinds": (images.argmax(-1),)}

    signature = signature_of(exported(Two(), shape=(3, 4), dtype="float32"))

    assert [(one.name, one.dtype, one.shape) for one in signature.outputs] == [
        ("outputs_0", "float32", (None,)),
        ("outputs_1", "int64", (None, 3)),
    ]


def test_batch_norm_is_folded(tmp_path: Path) -> None:
    body = body_of(read_program(residual_program(tmp_path)))

    operators = [str(node.target) for node in body.graph.nodes]

    assert not any("batch_norm" in operator for operator in operators)
    assert operators.count("aten.conv2d.default") == 2


def test_batch_norm_whose_convolution_is_read_elsewhere_too_is_kept() -> None:
    from torch import nn

    class Shared(nn.Module):  # type: ignore[misc] # untyped
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 4, 3)
            self.norm = torch.nn.BatchNorm2d(4)

        def forward(self, images: Any) -> Any:
            found = self.convolution(images)
            return found + self.norm(found)

    module = Shared().eval()

    body = body_of(exported(module, shape=(3, 8, 8), dtype="float32"))

    torch.testing.assert_close(body(images(2))[0], module(images(2)))
    assert any("batch_norm" in str(node.target) for node in body.graph.nodes)


def test_same_module_gives_the_same_bytes_without_a_trace_of_its_maker(tmp_path: Path) -> None:
    for name in ("a.pt2", "b.pt2"):
        program = exported(residual_module(), shape=(3, 8, 8), dtype="float32")
        write_program(program, tmp_path / name)

    content = (tmp_path / "a.pt2").read_bytes()
    assert content == (tmp_path / "b.pt2").read_bytes()
    assert b"torch_fakes" not in content
    assert sys.prefix.encode() not in content


def test_fixed_batch_stands_in_the_signature(tmp_path: Path) -> None:
    program = read_program(residual_program(tmp_path))

    fixed = signature_of(reexported(program, body_of(program), batch_size=7))

    assert fixed.batch_size == 7
    assert fixed.outputs[0].shape == (7, 5)


def test_file_with_weights_to_unpickle_is_refused(tmp_path: Path) -> None:
    source, forged = residual_program(tmp_path), tmp_path / "forged.pt2"
    with ZipFile(source) as before, ZipFile(forged, "w") as after:
        for entry in before.infolist():
            content = before.read(entry)
            after.writestr(entry, content.replace(b'"use_pickle": false', b'"use_pickle": true'))

    with pytest.raises(ModelError, match="weights that would be unpickled"):
        read_program(forged)


def test_file_with_example_inputs_is_refused(tmp_path: Path) -> None:
    """Torch falls back to a full unpickling where the careful one fails."""
    program = read_program(residual_program(tmp_path))
    program.example_inputs = ((images(2),), {})
    torch.export.save(program, tmp_path / "examples.pt2")

    with pytest.raises(ModelError, match="example inputs, which would be unpickled"):
        read_program(tmp_path / "examples.pt2")


def test_what_is_no_program_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "noise.pt2").write_bytes(b"noise" * 20)

    for name in ("noise.pt2", "gone.pt2"):
        with pytest.raises(ModelError, match=name):
            read_program(tmp_path / name)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [(Precision.FP16, 5e-3), (Precision.BF16, 3e-2)]
)
def test_lowered_program_takes_and_gives_what_the_original_does(
    tmp_path: Path, precision: Precision, tolerance: float
) -> None:
    """Tolerances: some units in the last place of 10 and of 7 bits."""
    model, lowered = residual_program(tmp_path), tmp_path / "lowered.pt2"

    convert(model, precision, lowered)

    assert program_signature(lowered) == program_signature(model)
    [wide], [narrow] = answers(model, images(4)), answers(lowered, images(4))
    assert 0 < float((wide - narrow).abs().max()) < tolerance * float(wide.abs().max())
    assert lowered.stat().st_size < model.stat().st_size


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.TF32])
def test_full_precision_keeps_the_program(tmp_path: Path, precision: Precision) -> None:
    model = residual_program(tmp_path)

    convert(model, precision, tmp_path / "same.pt2")

    assert (tmp_path / "same.pt2").read_bytes() == model.read_bytes()
    assert converter_versions(precision) == ()


def test_precision_without_a_converter_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no converter makes int8; use one of: fp32"):
        convert(residual_program(tmp_path), Precision.INT8, tmp_path / "out.pt2")


@pytest.mark.parametrize("name", ["cnn-w16", "cnn-w32", "resnet-w16"])
def test_shipped_modules_answer_as_the_shipped_onnx_files_do(name: str) -> None:
    from onnxruntime import InferenceSession
    from safetensors.torch import load_model

    from search_spaces.shipped.fashion_mnist import nets

    module = getattr(nets, name.replace("-", "_"))().eval()
    load_model(module, SHIPPED / f"{name}.safetensors")
    with np.load(SHIPPED / "search.npz") as stored:
        batch = stored["inputs"][:64].astype(np.float32) / 255

    [logits] = body_of(exported(module, shape=(1, 28, 28), dtype="float32"))(
        torch.from_numpy(batch)
    )

    session = InferenceSession(SHIPPED / f"{name}.onnx", providers=["CPUExecutionProvider"])
    [expected] = session.run(None, {"images": batch})
    np.testing.assert_allclose(logits.detach().numpy(), expected, atol=1e-5, rtol=1e-5)
