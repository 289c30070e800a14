"""Register an exported deployment: from its folder to a version in MLflow's model registry."""

import re
from pathlib import Path

from optimizer.errors import UsageError
from optimizer.export.manifest import EstimateSection, Manifest
from optimizer.front.words import label, short, text_of
from optimizer.tracking.client import open_registry
from optimizer.tracking.destination import NO_MLFLOW, Destination, check_uri, destination_of
from optimizer.tracking.messages import Pairs
from optimizer.tracking.registry import BELOW, Candidate, Registered
from optimizer.verification.bundle import Bundle, open_bundle
from optimizer.workspace import Workspace

_NAME_FORM = re.compile(r"[\w][\w .-]*")


def registry_at(mlflow: str | None, workspace: Workspace) -> Destination:
    """Name the MLflow whose registry is meant; None is the workspace's own.

    Raises:
        UsageError: The URI means none.
    """
    if mlflow == NO_MLFLOW:
        raise UsageError(
            "--mlflow none has no registry", hint="name the MLflow whose registry is meant"
        )
    check_uri(mlflow)
    return destination_of(mlflow, workspace)


def register(folder: Path, destination: Destination, *, name: str | None) -> Registered:
    """Make an export a version of a registered model of MLflow, unless it is one already.

    Args:
        folder: A whole export.
        destination: Which MLflow.
        name: Of the registered model; the space's unless told.

    Raises:
        BundleError: The folder is not what was exported.
        UsageError: MLflow would not take the name.
        UnavailableError: MLflow does not answer.
        TrackingError: MLflow refuses.
    """
    bundle = open_bundle(folder)
    chosen = bundle.manifest.trial.space if name is None else name
    if not _NAME_FORM.fullmatch(chosen):
        raise UsageError(
            f"a registered model cannot be called {chosen!r}",
            hint="give --name letters, digits, spaces, dots and dashes",
        )
    return open_registry(destination).register(candidate_of(bundle), chosen)


def candidate_of(bundle: Bundle) -> Candidate:
    """Say of an export what the registry keeps beside its files."""
    manifest = bundle.manifest
    return Candidate(
        folder=bundle.folder,
        fingerprint=bundle.fingerprint,
        trial_uid=manifest.trial.uid,
        tags=_tags(manifest),
        params=tuple(
            (axis, str(value)) for axis, value in manifest.deployment.deployment().axes()
        ),
        description=_description(bundle),
    )


def _tags(manifest: Manifest) -> Pairs:
    """Return what versions are found and compared by, each metric with its interval."""
    about = {
        "study": manifest.trial.study,
        "trial": str(manifest.trial.number),
        "trial_uid": manifest.trial.uid,
        "format": manifest.kind,
        "backend": manifest.engine.backend,
        "variant": manifest.deployment.variant,
        "precision": manifest.deployment.precision.value,
        "engine_digest": manifest.engine.sha256,
        "exported_by": manifest.exported.by,
        "exported_at": manifest.exported.at.isoformat(),
        "trifront": manifest.exported.trifront,
    }
    metrics: dict[str, str] = {}
    for name, estimate in manifest.metrics.items():
        metrics |= _limits(name, estimate)
    for split, scores in manifest.scores.items():
        for name, estimate in scores.scores.items():
            metrics |= _limits(f"{split}.{name}", estimate)
    for bound in manifest.constraints:
        about[f"bound {bound.metric}"] = f"{bound.sense} {bound.bound:g}: {bound.standing}"
    return tuple((about | metrics).items())


def _limits(name: str, estimate: EstimateSection) -> dict[str, str]:
    ends = {name: estimate.value, f"{name}.low": estimate.low, f"{name}.high": estimate.high}
    return {key: repr(value) for key, value in ends.items() if value is not None}


def _description(bundle: Bundle) -> str:
    manifest = bundle.manifest
    objectives = "\n".join(
        f"- {label(one.metric)}: {text_of(one.measured.estimate())}" for one in manifest.objectives
    )
    return f"""\
**{short(manifest.deployment.deployment())}**, trial {manifest.trial.number} of study \
{manifest.trial.study}, exported by {manifest.exported.by}.

{objectives}

Fingerprint `{bundle.fingerprint}`. The files are in `{BELOW}/`; download them, and \
`trifront verify {BELOW}/` checks them.
"""
