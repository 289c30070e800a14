"""Torch variants: exported whole, answered alike, identified by their content."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces.space import TorchSource
from trials.errors import ModelError
from trials.models.onnx_model import read_facts
from trials.models.torch_variant import export_torch, torch_identity

torch = pytest.importorskip("torch", reason="needs the extra trifront[torch]")

NETS = """
import warnings

from torch import nn


def small():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 6 * 6, 3),
    )


def other():
    return small()


def wide():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), *small()[1:])


def bare():
    return small()[:1]


def no_module():
    return 3


def broken():
    raise RuntimeError("no such checkpoint")


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, images):
        warnings.warn("the user's own warning")
        return self.body(images.reshape(2, 1, 6, 6))


def fixed():
    return Fixed()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchSource]:
    """Make a module with trained-looking BatchNorm statistics, on Python's path."""
    from safetensors.torch import save_model

    folder = tmp_path_factory.mktemp("nets")
    (folder / "tiny_nets.py").write_text(NETS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        module = net("small").train()
        module(torch.rand(16, 1, 6, 6) * 3)
        save_model(module, folder / "small.safetensors")
        yield TorchSource(
            name="small",
            factory="tiny_nets:small",
            weights=folder / "small.safetensors",
            input_shape=(1, 6, 6),
        )
        sys.modules.pop("tiny_nets")


@pytest.fixture(scope="module")
def exported(source: TorchSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "small.onnx"
    export_torch(source, out)
    return out


def net(name: str) -> Any:
    import tiny_nets  # type: ignore[import-not-found] # made by the fixture

    torch.manual_seed(0)
    return getattr(tiny_nets, name)()


@pytest.mark.parametrize("batch_size", [1, 5])
def test_exported_model_answers_as_torch_does(
    source: TorchSource, exported: Path, batch_size: int
) -> None:
    from onnxruntime import InferenceSession
    from safetensors.torch import load_model

    module = net("small").eval()
    load_model(module, source.weights)
    images = torch.rand(batch_size, 1, 6, 6, generator=torch.Generator().manual_seed(1))

    session = InferenceSession(exported, providers=["CPUExecutionProvider"])
    [answers] = session.run(None, {"inputs": images.numpy()})

    expected = module(images).detach().numpy()
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-5)  # sums in other orders


def test_exported_model_has_one_input_with_a_free_batch(exported: Path) -> None:
    facts = read_facts(exported)

    assert facts.batch == "free"
    assert [(spec.name, spec.dtype, spec.shape) for spec in facts.inputs] == [
        ("inputs", "float32", (None, 1, 6, 6))
    ]


def test_batch_norm_is_folded(exported: Path) -> None:
    import onnx

    operators = {node.op_type for node in onnx.load(exported).graph.node}

    assert "BatchNormalization" not in operators


def test_exporting_again_in_another_process_gives_the_same_bytes(
    source: TorchSource, exported: Path, tmp_path: Path
) -> None:
    """That the exporter says nothing on the way is part of it."""
    program = (
        "import sys; from pathlib import Path; from search_spaces.space import TorchSource\n"
        "from trials.models.torch_variant import export_torch\n"
        "assert 'torch' not in sys.modules\n"
        f"sys.path.insert(0, {str(source.weights.parent)!r})\n"
        f"source = TorchSource(name='small', factory={source.factory!r}, input_shape=(1, 6, 6),"
        f" weights=Path({str(source.weights)!r}))\n"
        f"export_torch(source, Path({str(tmp_path / 'again.onnx')!r}))\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100
    )

    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()
    assert ran.stdout + ran.stderr == ""


def test_exported_file_names_nothing_of_this_machine(source: TorchSource, exported: Path) -> None:
    content = exported.read_bytes()

    assert str(source.weights.parent).encode() not in content
    assert b"tiny_nets.py" not in content
    assert sys.prefix.encode() not in content


def test_failed_export_leaves_nothing_behind(source: TorchSource, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        export_torch(replace(source, factory="tiny_nets:broken"), tmp_path / "out.onnx")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("broken", r"tiny_nets:broken failed: RuntimeError: no such checkpoint"),
        ("no_module", r"returned a int; return a torch\.nn\.Module"),
        ("smal", r"has no function 'smal'; did you mean 'small'"),
        ("wide", r"does not fit tiny_nets:wide: size mismatch for 0\.weight"),
        ("bare", r"has too many 1\.bias, 1\.num_batches_tracked.*and 2 more; save the state"),
        ("fixed", r"small\.safetensors: misses body\.0\.weight.*and has too many 0\.weight"),
    ],
)
def test_factory_or_weights_that_do_not_fit_are_refused_in_one_line(
    source: TorchSource, tmp_path: Path, factory: str, message: str
) -> None:
    misfit = replace(source, factory=f"tiny_nets:{factory}")

    with pytest.raises(ModelError, match=message) as caught:
        export_torch(misfit, tmp_path / "out.onnx")

    assert "\n" not in str(caught.value)


def test_module_that_fixes_the_batch_is_refused(source: TorchSource, tmp_path: Path) -> None:
    from safetensors.torch import save_model

    save_model(net("fixed"), tmp_path / "fixed.safetensors")
    fixed = replace(source, factory="tiny_nets:fixed", weights=tmp_path / "fixed.safetensors")

    with pytest.raises(ModelError, match=r"tiny_nets:fixed's module fixes the batch"):
        export_torch(fixed, tmp_path / "out.onnx")


def test_module_that_cannot_be_exported_is_refused_in_one_line(
    source: TorchSource, tmp_path: Path
) -> None:
    misfit = replace(source, input_shape=(1, 7, 7))

    said = r"exporting tiny_nets:small for samples of shape \(1, 7, 7\) failed: RuntimeError"
    with pytest.raises(ModelError, match=said) as caught:
        export_torch(misfit, tmp_path / "out.onnx")

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_weights_that_cannot_be_read_are_refused(
    source: TorchSource, tmp_path: Path, content: bytes | None
) -> None:
    weights = tmp_path / "w.safetensors"
    if content is not None:
        weights.write_bytes(content)

    with pytest.raises(ModelError, match=r"w\.safetensors: is no readable safetensors file"):
        export_torch(replace(source, weights=weights), tmp_path / "out.onnx")


def test_identity_is_of_content_not_of_names(source: TorchSource, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(source.weights.read_bytes())

    renamed = replace(source, name="renamed", weights=copy)

    assert torch_identity(renamed) == torch_identity(source)


@pytest.mark.parametrize(
    "change",
    [{"factory": "tiny_nets:other"}, {"input_shape": (1, 8, 8)}, {"input_dtype": "float64"}],
)
def test_identity_covers_factory_and_input(source: TorchSource, change: dict[str, Any]) -> None:
    assert torch_identity(replace(source, **change)) != torch_identity(source)


def test_identity_covers_weights_and_code(source: TorchSource, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(source.weights.read_bytes() + b" ")
    code = source.weights.with_name("tiny_nets.py")
    before = torch_identity(source)

    code.write_text(f"{NETS}\n# changed\n", encoding="utf-8")
    del sys.modules["tiny_nets"]  # as in a new process
    after = torch_identity(source)
    code.write_text(NETS, encoding="utf-8")
    del sys.modules["tiny_nets"]

    assert len({before, after, torch_identity(replace(source, weights=weights))}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factory": "no_such_nets:small"}, r"no module 'no_such_nets'"),
        ({"factory": "tiny_nets.deeper:small"}, r"no module 'tiny_nets\.deeper'"),
        ({"weights": Path("gone.safetensors")}, r"gone\.safetensors: weights of variant 'small'"),
    ],
)
def test_identity_of_what_is_missing_is_refused(
    source: TorchSource, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        torch_identity(replace(source, **change))


def test_missing_torch_is_named_with_the_extra(
    source: TorchSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed

    for use in (torch_identity, lambda one: export_torch(one, tmp_path / "out.onnx")):
        with pytest.raises(ModelError, match=r"needs torch; install trifront\[torch\]"):
            use(source)
