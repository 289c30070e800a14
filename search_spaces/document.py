"""The space file as it is written: pydantic models, one per section, before anything is looked up.

Only the shape of the file is checked here (keys, types, ranges of single values); what needs two
sections or the disk is checked in ``assembly``. Types are strict, because YAML's guesses (``1.0``
for ``1``, ``on`` for ``true``) would be searched as something that nobody meant. The descriptions
and examples are what ``trifront schema`` prints and what editors show.
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from search_spaces.arrivals_document import ArrivalsDocument
from search_spaces.deployment import Precision
from search_spaces.field_types import (
    Concurrency,
    Count,
    Distinct,
    Dtype,
    FilePath,
    FunctionName,
    Name,
    OptionValues,
    Positive,
    QueueDelay,
    Rate,
    Section,
    Seed,
    Share,
    Version,
    check_option_names,
)
from search_spaces.metrics import METRICS, Direction
from search_spaces.space import MeasuringPlan
from search_spaces.task_document import TaskDocument

_PLAN = MeasuringPlan()
_METRICS: JsonDict = {"propertyNames": {"enum": [*sorted(METRICS)]}}


class TorchDocument(Section):
    """A variant made by a factory and filled from a safetensors file; exported when first used."""

    factory: FunctionName = Field(
        description="Function that takes nothing and returns the torch module.",
        examples=["my_package.models:small"],
    )
    weights: FilePath = Field(
        description="Safetensors file with the module's state.", examples=["small.safetensors"]
    )
    input_shape: Annotated[list[Count], Field(min_length=1)] = Field(
        description="Shape of one sample, without the batch.", examples=[[1, 28, 28]]
    )
    input_dtype: Dtype = Field(
        default="float32", description="Type of the input.", examples=["float32"]
    )


class FakeDocument(Section):
    """A variant of the fake backend: numbers instead of a model."""

    work_ms: Positive = Field(
        description="Time of one sample alone at fp32, milliseconds.", examples=[0.3]
    )
    accuracy: float = Field(ge=0, le=1, description="True accuracy at fp32.", examples=[0.91])
    size_mb: Positive = Field(description="Memory of the weights, megabytes.", examples=[40])
    fault: Literal["oom", "crash", "hang", "garbage"] | None = Field(
        default=None, description="What goes wrong, to see it handled.", examples=["oom"]
    )


class VariantDocument(Section):
    """One model that could be deployed: a name and exactly one of `onnx`, `torch`, `fake`."""

    name: Name = Field(description="What tables and rules call it.", examples=["small"])
    onnx: FilePath | None = Field(
        default=None, description="An ONNX file.", examples=["models/small.onnx"]
    )
    torch: TorchDocument | None = Field(
        default=None,
        description="A torch module to export.",
        examples=[
            {
                "factory": "my_package.models:small",
                "weights": "small.safetensors",
                "input_shape": [1, 28, 28],
            }
        ],
    )
    fake: FakeDocument | None = Field(
        default=None,
        description="Numbers for the fake backend.",
        examples=[{"work_ms": 0.3, "accuracy": 0.91, "size_mb": 40}],
    )


class AxesDocument(Section):
    """The dimensions of the space; any key besides these is an option of the backend."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OptionValues] = Field(init=False)

    variant: Annotated[list[Name], Field(min_length=1), Distinct] | None = Field(
        default=None,
        description="Names of the variants to search; all of them unless given.",
        examples=[["small", "wide"]],
    )
    precision: Annotated[
        list[Annotated[Precision, Field(strict=False)]], Field(min_length=1), Distinct
    ] = Field(
        default=[Precision.FP32],
        description="Arithmetic of the engine; int8 and fp8 need calibration data.",
        examples=[["fp32", "int8"]],
    )
    batch_size: Annotated[list[Count], Field(min_length=1), Distinct] = Field(
        default=[1], description="Samples per request.", examples=[[1, 2, 4, 8]]
    )
    concurrency: Annotated[list[Concurrency], Field(min_length=1), Distinct] = Field(
        default=[1], description="Requests in flight at once.", examples=[[1, 2]]
    )
    load: Annotated[list[Literal["closed", "open"]], Field(min_length=1), Distinct] = Field(
        default=["closed"],
        description="closed: a request is sent when one is answered; open: requests of one "
        "sample come at `rate_rps` and are batched, `batch_size` being the largest batch.",
        examples=[["open"]],
    )
    rate_rps: Annotated[list[Rate], Field(min_length=1), Distinct] | None = Field(
        default=None,
        description="Mean rate at which requests come, requests/s; for load: [open].",
        examples=[[100, 200, 400]],
    )
    max_queue_delay_us: Annotated[list[QueueDelay], Field(min_length=1), Distinct] | None = Field(
        default=None,
        description="How long a request may wait for others to share its batch, microseconds; "
        "for load: [open], 0 unless given.",
        examples=[[0, 500, 2000]],
    )

    @model_validator(mode="after")
    def _option_names(self) -> Self:
        check_option_names(self.__pydantic_extra__)
        return self


class MeasureDocument(Section):
    """How long and how well each deployment is measured; targets are relative half-widths."""

    target_p50: Share = Field(
        default=_PLAN.target_p50,
        description="Relative half-width of the 95 % interval of p50 latency to reach.",
        examples=[0.01],
    )
    target_p99: Share = Field(
        default=_PLAN.target_p99, description="Likewise for p99 latency.", examples=[0.05]
    )
    target_throughput: Share = Field(
        default=_PLAN.target_throughput, description="Likewise for throughput.", examples=[0.01]
    )
    min_blocks: int = Field(
        default=_PLAN.min_blocks,
        ge=8,  # fewer give an interval that says nothing
        le=10_000,
        description="Blocks of load before the first look at the intervals.",
        examples=[8],
    )
    block_s: Positive = Field(
        default=_PLAN.block_s, description="Least length of a block, seconds.", examples=[0.1]
    )
    block_requests: Count = Field(
        default=_PLAN.block_requests,
        description="Least number of requests in a block.",
        examples=[100],
    )
    warmup_s: float = Field(
        default=_PLAN.warmup_s, ge=0, description="Least warm-up, seconds.", examples=[0.2]
    )
    max_s: Positive = Field(
        default=_PLAN.max_s,
        description="Most time spent on measuring one deployment, seconds.",
        examples=[10],
    )
    deadline_s: Positive = Field(
        default=_PLAN.deadline_s,
        description="A trial that takes longer is killed and counts as failed, seconds.",
        examples=[300],
    )
    max_memory_mb: Positive | None = Field(
        default=_PLAN.max_memory_mb,
        description="A deployment that needs more is infeasible; default: the machine's limit.",
        examples=[4096],
    )
    seed: Seed = Field(
        default=_PLAN.seed,
        description="Seeds every random choice of the measurement.",
        examples=[0],
    )
    arrivals: ArrivalsDocument | None = Field(
        default=None,
        description="How requests lie in time under load: [open]; a Poisson process unless given.",
        examples=[{"kind": "poisson", "seed": 0}, {"kind": "gamma", "burstiness": 2.0}],
    )
    preferred_batch_sizes: Annotated[list[Count], Field(min_length=1), Distinct] | None = Field(
        default=None,
        description="Batches that the batcher of load: [open] sends at once when it can; the "
        "largest unless given.",
        examples=[[4, 8]],
    )


class SpaceDocument(Section):
    """A deployment space: what may be deployed, what is wanted of it, how it is measured."""

    version: Version = Field(description="Version of this file format.", examples=[1])
    name: Name = Field(description="Name of the space and of its study.", examples=["my-model"])
    backend: Literal["ort", "fake", "tensorrt", "torch"] = Field(
        description="The inference engine.", examples=["ort"]
    )
    task: TaskDocument = Field(
        default=TaskDocument(),
        description="What the model is for, and its data.",
        examples=[{"kind": "classification", "data": {"path": "data.npz"}}],
    )
    variants: Annotated[list[VariantDocument], Field(min_length=1)] = Field(
        description="The models that could be deployed.",
        examples=[[{"name": "small", "onnx": "small.onnx"}]],
    )
    axes: AxesDocument = Field(
        default=AxesDocument(),
        description="The dimensions of the space, each a list of values to try.",
        examples=[{"precision": ["fp32", "int8"], "batch_size": [1, 2, 4], "threads": [1, 2]}],
    )
    rules: list[str] = Field(
        default=[],
        description="Conditions that every deployment meets: arithmetic, comparisons, and, or, "
        "not, in; text in quotes.",
        examples=[["concurrency * threads <= 4", "precision != 'int8' or batch_size >= 4"]],
    )
    objectives: dict[str, Annotated[Direction, Field(strict=False)]] | None = Field(
        default=None,
        min_length=1,
        description="Metrics to optimize; p99 latency, throughput and accuracy unless given.",
        examples=[{"latency_p99_ms": "minimize", "accuracy": "maximize"}],
        json_schema_extra=_METRICS,
    )
    constraints: list[str] = Field(
        default=[],
        description="Bounds to be met: `metric <= number` or `metric >= number`.",
        examples=[["accuracy >= 0.85", "latency_p99_ms <= 15"]],
    )
    measure: MeasureDocument = Field(
        default=MeasureDocument(),
        description="How long and how well each deployment is measured.",
        examples=[{"max_s": 5, "seed": 1}],
    )
