"""The manifest of an export: what was exported, how good it is, from what, on what, by whom.

One document, ``manifest.json``, written and read here and nowhere else; what every field means is
in ``docs/formats/manifest.md``. Unknown keys are refused, because a key that nobody reads is a
promise that nobody keeps. Digests are SHA-256, hexadecimal; times are UTC.
"""

import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from optimizer.errors import BundleError
from optimizer.front.certainty import Verdict
from search_spaces.arrivals import Arrivals
from search_spaces.deployment import Deployment, OpenLoad, Precision, Scalar
from search_spaces.metrics import Direction
from search_spaces.space import MeasuringPlan, Preprocessing, Task, TaskKind
from trials.backend import EngineSpec, TensorSpec
from trials.measurement import Estimate

MANIFEST = "manifest.json"
FORMAT = 2

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# relative, with forward slashes, and never upwards
RelativePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
]


class Role(StrEnum):
    """What a file of an export is for."""

    ENGINE = "engine"
    MODEL = "model"
    SERVED = "served"
    REFERENCES = "references"
    BLOCKS = "blocks"
    TRACE = "trace"
    SPACE = "space"
    README = "readme"
    CONFIG = "config"
    LABELS = "labels"
    CODE = "code"


class Section(BaseModel):
    """A part of the manifest: unknown keys are refused, values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class FileSection(Section):
    """One file of the export."""

    sha256: Digest
    size_bytes: int = Field(ge=0)
    role: Role


class ExportedSection(Section):
    """Who exported when, with which trifront."""

    at: datetime
    by: str
    trifront: str


class TrialSection(Section):
    """The trial that measured the deployment."""

    study: str
    number: int
    uid: str
    space: str
    started_at: datetime
    finished_at: datetime


class LoadSection(Section):
    """The open load that the deployment was measured under."""

    rate_rps: float = Field(gt=0)
    max_queue_delay_us: int = Field(ge=0)


class DeploymentSection(Section):
    """The point of the space.

    Attributes:
        load: None for a closed loop.
    """

    variant: str
    precision: Precision
    batch_size: int = Field(ge=1)
    concurrency: int = Field(ge=1)
    options: dict[str, Scalar]
    load: LoadSection | None = None

    def deployment(self) -> Deployment:
        """Return it as the rest of trifront sees it."""
        return Deployment(
            variant=self.variant,
            precision=self.precision,
            batch_size=self.batch_size,
            concurrency=self.concurrency,
            options=tuple(sorted(self.options.items())),
            load=None if self.load is None else OpenLoad(**self.load.model_dump()),
        )


class EngineSection(Section):
    """The engine that was measured, and all that its content depends on."""

    backend: str
    sha256: Digest
    size_bytes: int
    model_sha256: Digest
    variant_sha256: Digest
    batch_size: int | None
    options: dict[str, Scalar]
    environment: dict[str, str]

    def spec(self, precision: Precision, environment: tuple[tuple[str, str], ...]) -> EngineSpec:
        """Say what to build from the portable model on a machine of this environment."""
        return EngineSpec(
            backend=self.backend,
            model_digest=self.model_sha256,
            precision=precision,
            batch_size=self.batch_size,
            options=tuple(sorted(self.options.items())),
            environment=environment,
        )


class PreprocessingSection(Section):
    """How stored samples became inputs; ``dtype`` is that of every input, or one by input."""

    dtype: str | dict[str, str]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    color: str

    def preprocessing(self) -> Preprocessing:
        """Return it as data are read with."""
        dtype = self.dtype if isinstance(self.dtype, str) else tuple(self.dtype.items())
        return Preprocessing(
            dtype=dtype,
            scale=self.scale,
            mean=self.mean,
            std=self.std,
            size=self.size,
            color=self.color,
        )


class TaskSection(Section):
    """What the outputs were scored as."""

    kind: TaskKind
    metric: str | None
    preprocessing: PreprocessingSection
    classes: tuple[str, ...] | None

    def task(self) -> Task:
        """Return it as scoring takes it, without data."""
        return Task(
            kind=self.kind,
            metric=self.metric,
            data=None,
            preprocessing=self.preprocessing.preprocessing(),
        )


class TensorSection(Section):
    """An input or output of the engine; null is a free dimension, the first one is the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def tensor(self) -> TensorSpec:
        """Return it as feeding takes it."""
        return TensorSpec(name=self.name, dtype=self.dtype, shape=self.shape)


class EstimateSection(Section):
    """A value with its 95 % interval; null where the data cannot give a limit."""

    value: float
    low: float | None
    high: float | None

    def estimate(self) -> Estimate:
        """Return it as statistics take it."""
        return Estimate(value=self.value, low=self.low, high=self.high)


class ObjectiveSection(Section):
    """A metric that the study optimized."""

    metric: str
    direction: Direction
    measured: EstimateSection


class ConstraintSection(Section):
    """A bound of the study, and the room that is left.

    Attributes:
        margin: Distance to the bound in the metric's unit, negative where it is missed.
        standing: What the whole interval says about the bound.
    """

    metric: str
    sense: Literal["<=", ">="]
    bound: float
    measured: EstimateSection
    margin: float
    standing: Verdict


class ScoresSection(Section):
    """What the engine scored on one split."""

    sha256: Digest
    samples: int
    scores: dict[str, EstimateSection]


class PlanSection(Section):
    """How long and how well was measured, as in the space file."""

    target_p50: float
    target_p99: float
    target_throughput: float
    min_blocks: int
    block_s: float
    block_requests: int
    warmup_s: float
    max_s: float
    deadline_s: float
    max_memory_mb: float | None
    seed: int
    arrivals: Arrivals | None = None
    preferred_batch_sizes: tuple[int, ...] = ()


class MeasurementSection(Section):
    """The load that the metrics were measured under."""

    plan: PlanSection
    requests: int
    blocks: int
    flags: tuple[str, ...]

    def measuring_plan(self) -> MeasuringPlan:
        """Return the plan as measuring takes it."""
        return MeasuringPlan(**dict(self.plan))


class ReferencesSection(Section):
    """The recorded answers.

    Attributes:
        tolerance: Largest deviation of an engine that was built anew; the measured engine on the
            same kind of machine must answer bit by bit alike.
    """

    samples: int
    available: int
    batch_size: int
    tolerance: float


class CertifiedSection(Section):
    """What certifying the front came to, for this deployment.

    Attributes:
        probability: That it belongs on the front.
        sessions: In which it was measured.
        decided: Of all candidates it was certain whether they belong.
        speeds: Over sessions.
    """

    at: datetime
    probability: float
    sessions: int
    decided: bool
    speeds: dict[str, EstimateSection]


class Manifest(Section):
    """Everything about an export."""

    format: Literal[2] = 2
    kind: str
    exported: ExportedSection
    trial: TrialSection
    deployment: DeploymentSection
    objectives: tuple[ObjectiveSection, ...]
    constraints: tuple[ConstraintSection, ...]
    metrics: dict[str, EstimateSection]
    scores: dict[str, ScoresSection]
    measurement: MeasurementSection
    engine: EngineSection
    inputs: tuple[TensorSection, ...]
    outputs: tuple[TensorSection, ...]
    task: TaskSection
    references: ReferencesSection | None
    certified: CertifiedSection | None = None  # absent where an earlier trifront exported
    digests: dict[str, Digest]
    environment: dict[str, str]
    packages: tuple[str, ...]
    files: dict[RelativePath, FileSection]

    def path_of(self, role: Role) -> str | None:
        """Return the path of the file of a role, None where the export has none."""
        return next((path for path, file in self.files.items() if file.role is role), None)


def json_from_manifest(manifest: Manifest) -> str:
    """Write a manifest as indented JSON, a line break at its end."""
    return manifest.model_dump_json(indent=2) + "\n"


def manifest_from_json(text: str, *, source: Path) -> Manifest:
    """Read a manifest back.

    Args:
        text: The document.
        source: Its file, for messages.

    Raises:
        BundleError: It is no manifest, of another version, or not as this version writes it.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise BundleError(
            f"{source}: line {error.lineno} is not JSON ({error.msg})",
            hint="copy or export it again",
        ) from error
    version = document.get("format") if isinstance(document, dict) else None
    if version != FORMAT:
        raise BundleError(
            f"{source}: is a manifest of format {version!r}, this trifront reads {FORMAT}",
            hint=_mend(version),
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(_complaint(error, source), hint="copy or export it again") from error


def _mend(version: object) -> str:
    if isinstance(version, int) and version > FORMAT:
        return "a newer trifront wrote it; install that one"
    return "export the trial again from its study; older exports have nothing to verify with"


def _complaint(error: ValidationError, source: Path) -> str:
    found = error.errors(include_url=False)
    key = ".".join(str(part) for part in found[0]["loc"])
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{source}: {key}: {found[0]['msg']}{more}"
