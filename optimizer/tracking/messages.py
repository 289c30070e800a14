"""What MLflow is told, as it lies in the spool: one message a record, versioned, in JSON.

A message holds everything that its run will say, ready to be sent, so that whoever delivers needs
neither the study nor the store. Files lie beside it in the record's folder under the names that
they will have in MLflow.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    with_config,
)

from optimizer.errors import TrackingError

ENVELOPE_FORMAT: Literal[1] = 1

_MAX_NAME = 200  # characters; file systems take 255 bytes


def _plain(name: str) -> str:
    """Refuse a name that leads anywhere but below the folder that it is used in."""
    parts = PurePosixPath(name).parts
    plain = "/".join(parts) == name and not {"..", "/"} & set(parts) and name.isprintable()
    if not plain or "\\" in name or not 0 < len(name) <= _MAX_NAME:
        raise ValueError(f"{name!r} is no name for an artifact")
    return name


Pairs: TypeAlias = tuple[tuple[str, str], ...]
Metrics: TypeAlias = tuple[tuple[str, FiniteFloat], ...]  # MLflow turns infinity into 1.8e308
ArtifactName: TypeAlias = Annotated[str, AfterValidator(_plain)]
Texts: TypeAlias = tuple[tuple[ArtifactName, str], ...]

_STRICT = with_config(ConfigDict(extra="forbid"))


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """The experiment of a study.

    Attributes:
        study_id: Unlike any other study's, also of one of the same name.
        description: Markdown.
    """

    name: str
    study_id: str
    description: str


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of a curve on the run of a search.

    Attributes:
        search: Uid of that run.
        step: Number of the trial.
        time_ms: Since the epoch.
    """

    search: str
    metric: str
    value: FiniteFloat
    step: int
    time_ms: int


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBegan:
    """A search begins or goes on.

    Attributes:
        datasets: (split, SHA-256) of the data; likewise elsewhere.
        texts: (artifact name, content); likewise elsewhere.
    """

    uid: str
    name: str
    started_ms: int
    tags: Pairs
    params: Pairs = ()
    datasets: Pairs = ()
    texts: Texts = ()
    kind: Literal["search"] = "search"


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBuilt:
    """An engine that a trial measured; the first of its digest keeps the file.

    Attributes:
        uid: SHA-256 of the engine.
        file: Name of the file in the record's folder.
    """

    uid: str
    name: str
    backend: str
    tags: Pairs
    params: Pairs
    file: ArtifactName
    kind: Literal["engine"] = "engine"


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """A trial has ended.

    Attributes:
        uid: Value of the tag ``trial_uid``, by which the run is found.
        status: MLflow's word for the end of the run.
        engine: SHA-256 of the engine that was measured, if one was.
        blocks: Artifact name of the raw blocks, if they are here.
        files: Artifact names of the files in the record's folder, the blocks included.
    """

    uid: str
    name: str
    started_ms: int
    finished_ms: int
    status: Literal["FINISHED", "FAILED"]
    tags: Pairs
    params: Pairs = ()
    metrics: Metrics = ()
    datasets: Pairs = ()
    texts: Texts = ()
    files: tuple[ArtifactName, ...] = ()
    blocks: ArtifactName | None = None
    engine: str | None = None
    point: Point | None = None
    kind: Literal["trial"] = "trial"


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictGiven:
    """What the report split says of a trial.

    Attributes:
        datasets: The split with its digest.
    """

    uid: str
    metrics: Metrics
    datasets: Pairs = ()
    kind: Literal["verdict"] = "verdict"


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class FrontFound:
    """Which trials are on the front; those that were and are not among them are no more."""

    uid: str
    members: tuple[str, ...]
    kind: Literal["front"] = "front"


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedTrial:
    """What a certificate says of one trial.

    Attributes:
        uid: Of the trial.
    """

    uid: str
    tags: Pairs
    metrics: Metrics


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateGiven:
    """A front was certified; what an earlier certificate said of other trials is outdated.

    Attributes:
        uid: Id of the study, of which the latest certificate counts.
        search: Uid of the run of the search.
        words: When, in how many sessions, and whether it was decided.
        at_ms: When, since the epoch.
    """

    uid: str
    search: str
    words: str
    at_ms: int
    trials: tuple[CertifiedTrial, ...]
    kind: Literal["certificate"] = "certificate"


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchEnded:
    """A session of a search has ended.

    Attributes:
        uid: Of the run of the search.
        status: MLflow's word; None while another session of the search goes on.
    """

    uid: str
    finished_ms: int
    status: Literal["FINISHED", "KILLED"] | None
    tags: Pairs = ()
    metrics: Metrics = ()
    step: int = 0
    texts: Texts = ()
    files: tuple[ArtifactName, ...] = ()
    kind: Literal["end"] = "end"


Message: TypeAlias = (
    SearchBegan
    | EngineBuilt
    | TrialEnded
    | VerdictGiven
    | FrontFound
    | CertificateGiven
    | SearchEnded
)


@_STRICT
@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message and the experiment that it is for."""

    version: Literal[1] = ENVELOPE_FORMAT
    experiment: Experiment
    message: Annotated[Message, Field(discriminator="kind")]


_ENVELOPE = TypeAdapter(Envelope)


def json_from_envelope(envelope: Envelope) -> bytes:
    """Serialize an envelope."""
    return _ENVELOPE.dump_json(envelope)


def envelope_from_json(content: bytes, *, source: str) -> Envelope:
    """Read an envelope back.

    Args:
        content: JSON.
        source: What messages call it.

    Raises:
        TrackingError: It is of another version, or somebody has edited it.
    """
    try:
        return _ENVELOPE.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        if key == "version":
            problem = f"is of version {first['input']}, this trifront reads {ENVELOPE_FORMAT}"
            hint = "deliver it with the trifront that wrote it, or remove it"
        else:
            where = f"{key}: " if key else ""
            problem = f"is not as it was written: {where}{first['msg']}"
            hint = "put it back as it was, or remove it; its trial is safe in the study"
        raise TrackingError(f"{source} {problem}", hint=hint) from error
