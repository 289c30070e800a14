"""Rank the layers of a variant by what lowering each alone does, in a worker process.

Every layer is one request with the deadline of a trial, and what came of it is kept: an
interrupted ranking goes on where it was, and a search with ``keep_layers`` finds it done.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from optimizer.authoring import draft_space
from optimizer.errors import UsageError
from optimizer.wiring import Place, opened_worker
from search_spaces.catalog import space_path
from search_spaces.deployment import Precision
from search_spaces.files import space_from_yaml
from search_spaces.space import Axis, SearchSpace
from search_spaces.spelling import did_you_mean
from trials.data.dataset import LayerSplit
from trials.isolation.messages import LayerQuestion
from trials.models.layers import Product
from trials.sensitivity import LayerEffect, ranked

KEEPING_BACKENDS = ("ort", "tensorrt")
"""Those with the option ``keep_layers``: their precision lives in an ONNX file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What a precision does to a variant, layer by layer.

    Attributes:
        backend: Of the space; layers of its variant are those of the ONNX model.
        split: Whose samples were asked, likewise their number.
        layers: Each with what lowering it alone does, the most sensitive first.
        whole: What lowering all of them does.
    """

    variant: str
    backend: str
    precision: Precision
    split: LayerSplit
    samples: int
    layers: tuple[tuple[Product, LayerEffect], ...]
    whole: LayerEffect

    @property
    def may_keep_layers(self) -> bool:
        """Tell whether the space takes the axis ``keep_layers``."""
        return self.backend in KEEPING_BACKENDS


@contextmanager
def named_space(name: str, *, data: Path | None) -> Iterator[SearchSpace]:
    """Read a space by its name or path, or draft one for a model file and its data.

    Args:
        name: A shipped space, a space file, or an ONNX file.
        data: The samples of an ONNX file; None for a space, which names its own.

    Raises:
        UsageError: Data beside a space, or a model without.
        SpaceError: There is no such space, or it cannot be used.
        TrialError: The model or its data cannot be used.
    """
    is_model = Path(name).suffix.lower() == ".onnx"
    if is_model and data is None:
        raise UsageError(
            f"{name} is a model, and layers are compared on real samples",
            hint="name them: --data data.npz, or a folder class/*.png",
        )
    if not is_model and data is not None:
        raise UsageError(f"{name} is a space and names its data itself", hint="leave --data out")
    if data is None:
        yield space_from_yaml(space_path(name))
        return
    with TemporaryDirectory(prefix="trifront-draft-") as folder:
        draft = draft_space(Path(name).resolve(), data=data.resolve(), to=Path(folder) / "m.yaml")
        yield space_from_yaml(draft.path)


def sensitivity_of(
    space: SearchSpace,
    place: Place,
    question: LayerQuestion,
    *,
    on_layer: Callable[[int, int], None],
) -> Sensitivity:
    """Lower each layer alone, and all of them.

    Args:
        space: Whose variant it is; its backend, axes and rules are not looked at.
        place: Whose store keeps the effects.
        question: Variant, precision and split; its layer is not looked at.
        on_layer: Told how many of how many effects are there, as they come.

    Raises:
        WorkspaceError: The workspace cannot be written.
        TrialError: Models or data that cannot be used, or a precision that cannot be made.
    """
    with opened_worker(_on_cpu(space, question.variant), place) as worker:
        samples = dict(worker.describe().samples)
        layers = worker.layers(question.variant, question.precision)
        names = ["", *(layer.name for layer in layers)]  # first the whole, which is wanted most
        effects: dict[str, LayerEffect] = {}
        for name in names:
            on_layer(len(effects), len(names))
            effects[name] = worker.lower(replace(question, layer=name))
        on_layer(len(effects), len(names))
    by_name = {layer.name: layer for layer in layers}
    order = ranked([effects[layer.name] for layer in layers])
    return Sensitivity(
        variant=question.variant,
        backend=space.backend,
        precision=question.precision,
        split=question.split,
        samples=samples[question.split],
        layers=tuple((by_name[effect.layer], effect) for effect in order),
        whole=effects[""],
    )


def variant_named(name: str | None, space: SearchSpace) -> str:
    """Return a variant of a space; without a name, the only one.

    Raises:
        UsageError: There is none of that name, or there are several to choose from.
    """
    names = [variant.name for variant in space.variants]
    if name is None and len(names) > 1:
        raise UsageError(
            f"the space has {len(names)} variants", hint=f"--variant with one of: {_list(names)}"
        )
    if name is not None and name not in names:
        raise UsageError(f"there is no variant '{name}'", hint=did_you_mean(name, names))
    return name or names[0]


def _on_cpu(space: SearchSpace, variant: str) -> SearchSpace:
    """Reduce a space to one model, data and batch: layers are compared on this machine's CPU."""
    if space.backend == "fake":
        return space
    axes = (
        Axis(name="variant", values=(variant,)),
        Axis(name="precision", values=(Precision.FP32.value,)),
        space.axis("batch_size"),
        Axis(name="concurrency", values=(1,)),
    )
    variants = tuple(one for one in space.variants if one.name == variant)
    return replace(space, backend="ort", variants=variants, axes=axes, rules=())


def _list(names: list[str]) -> str:
    return ", ".join(names)
