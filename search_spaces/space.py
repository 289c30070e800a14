"""The deployment space as the rest of trifront sees it: frozen, validated, enumerable."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import TypeAlias

from search_spaces.arrivals import Arrivals
from search_spaces.deployment import Deployment, Scalar, deployment_from_axes
from search_spaces.metrics import Direction, Metric
from search_spaces.rules import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxSource:
    """A variant that is an ONNX file."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSource:
    """A variant that a factory makes and a safetensors file fills; exported when first used.

    Attributes:
        factory: ``package.module:function`` that takes no argument and returns a module.
        weights: Safetensors file with the module's state.
        input_shape: Shape of one sample, without the batch dimension.
        input_dtype: NumPy name of the input's type.
    """

    name: str
    factory: str
    weights: Path
    input_shape: tuple[int, ...]
    input_dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSource:
    """A variant that only the fake backend knows: numbers instead of a model.

    Attributes:
        work_ms: Time of one sample alone at fp32, in milliseconds.
        accuracy: True top-1 accuracy at fp32, in [0, 1].
        size_mb: Memory of the weights, in megabytes.
        fault: What goes wrong, if anything: ``oom``, ``crash``, ``hang``, ``garbage``.
    """

    name: str
    work_ms: float
    accuracy: float
    size_mb: float
    fault: str | None = None


VariantSource = OnnxSource | TorchSource | FakeSource


class TaskKind(StrEnum):
    """What the outputs are scored as."""

    CLASSIFICATION = "classification"
    CUSTOM = "custom"


InputTypes: TypeAlias = tuple[tuple[str, str], ...]
"""(name of an input, NumPy name of its type), sorted by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How the stored samples of one input become what the model takes; see `Preprocessing`."""

    dtype: str
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How stored samples become model inputs: ``(x * scale - mean) / std``, per channel.

    Attributes:
        dtype: NumPy name of the type that every input has, or that of each; then scale, mean and
            std are for those of a floating type alone.
        scale: Factor on the stored value.
        mean: One per channel (axis 1 of the batch), or empty for none.
        std: One per channel, or empty for none.
        size: (height, width) that images of a folder are resized to, or None for npz files.
        color: ``rgb`` or ``gray``, for image folders.
    """

    dtype: str | InputTypes = "float32"
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    color: str = "rgb"

    def conversion(self, name: str) -> Conversion:
        """Return what is done to one input.

        Raises:
            KeyError: The types are given by input, and this one has none.
        """
        dtype = self.dtype if isinstance(self.dtype, str) else dict(self.dtype)[name]
        if isinstance(self.dtype, str) or is_floating(dtype):
            return Conversion(dtype=dtype, scale=self.scale, mean=self.mean, std=self.std)
        return Conversion(dtype=dtype)

    def in_words(self) -> str:
        """Say for people what is done, as ``type float32, times 0.5``."""
        if isinstance(self.dtype, str):
            parts, whose = [f"type {self.dtype}"], ""
        else:
            types = ", ".join(f"{name} as {dtype}" for name, dtype in self.dtype)
            parts, whose = [types], "floats "
        if self.scale != 1:
            parts.append(f"{whose}times {self.scale!r}")
        if self.mean:
            parts.append(f"{whose}minus mean {', '.join(map(repr, self.mean))} (by channel)")
        if self.std:
            parts.append(f"{whose}divided by std {', '.join(map(repr, self.std))} (by channel)")
        return ", ".join(parts)


def is_floating(dtype: str) -> bool:
    """Tell by its NumPy name whether a type is floating."""
    return dtype.startswith("float")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFiles:
    """Three files or folders, one per split; calibration only where something calibrates."""

    calibration: Path | None
    search: Path
    report: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOfOne:
    """One file or folder, cut by a seeded shuffle into three disjoint shares (each in (0, 1))."""

    path: Path
    calibration: float
    search: float
    report: float
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is scored, on which data.

    Attributes:
        metric: ``package.module:function(outputs, labels) -> scores`` for a custom task.
        data: None only for the fake backend.
        margin: Difference of the main score that does not matter; no number depends on it.
    """

    kind: TaskKind
    metric: str | None
    data: SplitFiles | SplitOfOne | None
    preprocessing: Preprocessing
    margin: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One dimension of the space: a name and its distinct values, numbers ascending."""

    name: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric to optimize."""

    metric: Metric
    direction: Direction

    def better(self, left: float, right: float) -> bool:
        """Tell whether ``left`` is strictly better than ``right``."""
        return left < right if self.direction is Direction.MINIMIZE else left > right


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A bound that a deployment must meet: ``metric <= bound`` or ``metric >= bound``."""

    metric: Metric
    upper: bool
    bound: float

    def violation(self, value: float) -> float:
        """Say by how much ``value`` misses the bound; <= 0 where it is met.

        On a log scale the distance is in decades, so that constraints of different units weigh
        alike; on a linear scale it is the difference.
        """
        distance = value - self.bound
        if self.metric.scale.value == "log" and value > 0 and self.bound > 0:
            distance = math.log10(value / self.bound)
        return distance if self.upper else -distance

    def __str__(self) -> str:
        return f"{self.metric.name} {'<=' if self.upper else '>='} {self.bound:.12g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringPlan:
    """How long and how well each deployment is measured.

    Attributes:
        target_p50: Relative half-width of the 95 % interval to reach, likewise the next two.
        min_blocks: Blocks measured before the first look, >= 8.
        block_s: Least length of one block, seconds.
        block_requests: Least number of requests in one block.
        warmup_s: Least warm-up after the cold call, seconds.
        max_s: Most time spent measuring one deployment, seconds.
        deadline_s: A trial that takes longer is killed, seconds.
        max_memory_mb: A deployment that needs more is infeasible; None is the machine's limit.
        seed: Seeds every random choice of the measurement.
        arrivals: How requests lie in time; None for a space of closed loops.
        preferred_batch_sizes: That the batcher of an open loop sends at once; empty for the
            largest alone.
    """

    target_p50: float = 0.01
    target_p99: float = 0.05
    target_throughput: float = 0.01
    min_blocks: int = 8
    block_s: float = 0.1
    block_requests: int = 100
    warmup_s: float = 0.2
    max_s: float = 10.0
    deadline_s: float = 300.0
    max_memory_mb: float | None = None
    seed: int = 0
    arrivals: Arrivals | None = None
    preferred_batch_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """All the deployments that a search may try, what is wanted of them, how they are measured.

    Attributes:
        source: Where the space was read, for messages; not part of its meaning.
        axes: The four required axes first, then those of an open load where it has one, then
            backend options sorted by name.
    """

    name: str
    source: str
    backend: str
    task: Task
    variants: tuple[VariantSource, ...]
    axes: tuple[Axis, ...]
    rules: tuple[Rule, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    plan: MeasuringPlan

    def deployments(self) -> Iterator[Deployment]:
        """Enumerate every deployment that the rules allow, in the axes' order."""
        names = [axis.name for axis in self.axes]
        for values in product(*(axis.values for axis in self.axes)):
            point = dict(zip(names, values, strict=True))
            if all(rule.allows(point) for rule in self.rules):
                yield deployment_from_axes(point)

    @property
    def largest_batch(self) -> int:
        """The largest batch size of its axis, which rules may forbid all the same."""
        return max(map(int, self.axis("batch_size").values))

    def variant(self, name: str) -> VariantSource:
        """Return the variant called ``name``.

        Raises:
            KeyError: There is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def axis(self, name: str) -> Axis:
        """Return the axis called ``name``.

        Raises:
            KeyError: There is none.
        """
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise KeyError(name)
