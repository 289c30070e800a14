"""Whether this machine can search, what it lacks, and what would disturb its numbers.

Nothing is made or changed: a workspace that does not exist yet is only checked for whether it
could be made. Each finding says what to do about it.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.request import urlopen

from optimizer.addresses import without_secrets
from optimizer.errors import OptimizerError, TrackingError
from optimizer.study.storage import existing_storage, public_url
from optimizer.tracking.destination import check_uri
from optimizer.wiring import Place
from trials.backends.catalog import BACKENDS, backend_named
from trials.backends.trt_advice import advice
from trials.errors import TrialError, UnsupportedError
from trials.machine.environment import environment
from trials.machine.nvml import Card, Load, cards, load_pynvml
from trials.machine.packages import installed_version

_NEEDED = ("numpy", "onnx", "onnxruntime", "optuna", "optuna-dashboard", "mlflow", "matplotlib")
_EXTRAS = {
    "torch": ("torch", "variants from a torch factory, the gp sampler"),
    "onnxscript": ("torch", "variants from a torch factory"),
    "psycopg": ("postgresql", "studies and runs on a PostgreSQL server"),
}
_LEAST_FREE_BYTES = 2 * 1000**3  # a search of a few large models fills as much
_BUSY = 0.5  # of all cores: a machine that works for others measures them too
_BYTES_PER_GB = 1e9
_PATIENCE_S = 3.0
_WORDS = {True: "on", False: "off", None: "not to be had"}
_GPU_DEVICE = Path("/dev/nvidia0")


class Grade(StrEnum):
    """How a finding bears on a search."""

    OK = "ok"
    ABSENT = "absent"  # and not needed for everything
    WARNING = "warning"  # numbers will be worse for it
    BROKEN = "broken"  # a search cannot work


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        detail: What was found.
        mend: What to do about it; empty where nothing is to be done.
    """

    topic: str
    name: str
    grade: Grade
    detail: str
    mend: str = ""


def findings_at(place: Place, *, mlflow: str | None) -> Iterator[Finding]:
    """Look at everything that a search here would use.

    Args:
        place: Workspace and storage.
        mlflow: Tracking URI; None for the workspace's own.
    """
    yield from _packages()
    yield from _backends()
    yield from _machine()
    yield from _places(place, mlflow)


def _packages() -> Iterator[Finding]:
    for name in ("trifront", *_NEEDED):
        found = installed_version(name)
        yield Finding(
            topic="packages",
            name=name,
            grade=Grade.BROKEN if found is None else Grade.OK,
            detail=found or "not installed",
            mend="pip install --force-reinstall trifront" if found is None else "",
        )
    for name, (extra, purpose) in _EXTRAS.items():
        found = installed_version(name)
        yield Finding(
            topic="packages",
            name=name,
            grade=Grade.ABSENT if found is None else Grade.OK,
            detail=found or f"not installed; needed for {purpose}",
            mend=f"pip install 'trifront[{extra}]'" if found is None else "",
        )


def _backends() -> Iterator[Finding]:
    for name in BACKENDS:
        try:
            precisions = backend_named(name).capabilities().precisions
        except TrialError as error:
            yield Finding(topic="backends", name=name, grade=Grade.ABSENT, detail=str(error))
            continue
        words = ", ".join(precision.value for precision in precisions)
        yield Finding(topic="backends", name=name, grade=Grade.OK, detail=words)
    found = advice()
    yield Finding(
        topic="backends",
        name="TensorRT library",
        grade=Grade.OK if found.is_there else Grade.ABSENT,
        detail=found.detail,
        mend=found.mend,
    )


def _machine() -> Iterator[Finding]:
    facts = dict(environment().facts)
    for name in ("cpu_model", "cpu_affinity", "memory_mb", "os"):
        if name in facts:
            yield Finding(topic="machine", name=name, grade=Grade.OK, detail=facts[name])
    yield from gpu_findings()
    yield _governor(facts.get("cpu_governor", "unknown"))
    yield _load()
    if not Path("/proc/self/schedstat").exists():
        yield Finding(
            topic="machine",
            name="run queue",
            grade=Grade.WARNING,
            detail="the kernel does not tell how long threads wait for a CPU",
            mend="numbers that others disturbed cannot be flagged here; keep the machine idle",
        )


def gpu_findings(load: Load = load_pynvml) -> Iterator[Finding]:
    """Describe each NVIDIA GPU and who computes on it, or say that there is none.

    Args:
        load: Loads NVML.
    """
    try:
        found = cards(load)
    except UnsupportedError as error:
        is_mute = _GPU_DEVICE.exists()
        yield Finding(
            topic="machine",
            name="gpu",
            grade=Grade.WARNING if is_mute else Grade.ABSENT,
            detail=f"there is an NVIDIA GPU, but {error}" if is_mute else "no NVIDIA GPU",
            mend="`nvidia-smi` tells whether the driver works" if is_mute else "",
        )
        return
    yield from map(_gpu, found)


def _gpu(card: Card) -> Finding:
    parts = [
        f"{card.name}, {card.uuid}",
        f"compute capability {card.compute_capability}",
        f"driver {card.driver}",
        f"MIG {_WORDS[card.is_mig]}",
        f"persistence {_WORDS[card.is_persistent]}",
        f"processes that compute on it: {card.processes}",
    ]
    mend = ""
    if card.is_mig:
        mend = "cut into parts, a card tells no energy of one: energy_per_sample_mj is absent"
    if card.processes:
        mend = "others on a GPU take its time: measure when they have ended"
    return Finding(
        topic="machine",
        name="gpu",
        grade=Grade.WARNING if card.processes else Grade.OK,
        detail=", ".join(parts),
        mend=mend,
    )


def _governor(governor: str) -> Finding:
    moves = governor not in ("performance", "unknown")
    return Finding(
        topic="machine",
        name="cpu_governor",
        grade=Grade.WARNING if moves else Grade.OK,
        detail=governor,
        mend="clocks move with load: cpupower frequency-set -g performance" if moves else "",
    )


def _load() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    busy = load > _BUSY * (cores or 1)
    return Finding(
        topic="machine",
        name="load",
        grade=Grade.WARNING if busy else Grade.OK,
        detail=f"{load:.2f} on {cores} cores",
        mend="others work here: measure when they have ended, or expect wide intervals"
        if busy
        else "",
    )


def _places(place: Place, mlflow: str | None) -> Iterator[Finding]:
    root = place.workspace.root
    yield _tried("workspace", str(root), place.workspace.check_writable)
    yield _disk(next(one for one in (root, *root.parents) if one.exists()))
    if place.storage_url is None and not (root / "studies.db").exists():
        yield Finding(topic="places", name="storage", grade=Grade.OK, detail="no study yet")
    else:
        yield _tried("storage", public_url(place.url), lambda: existing_storage(place.url))
    if mlflow is not None:
        yield _tried("tracking", without_secrets(mlflow), lambda: _reach(mlflow))


def _tried(name: str, detail: str, look: Callable[[], object]) -> Finding:
    try:
        look()
    except OptimizerError as error:
        return Finding(
            topic="places", name=name, grade=Grade.BROKEN, detail=str(error), mend=error.hint
        )
    return Finding(topic="places", name=name, grade=Grade.OK, detail=detail)


def _disk(folder: Path) -> Finding:
    free_bytes = shutil.disk_usage(folder).free
    scarce = free_bytes < _LEAST_FREE_BYTES
    return Finding(
        topic="places",
        name="disk",
        grade=Grade.WARNING if scarce else Grade.OK,
        detail=f"{free_bytes / _BYTES_PER_GB:,.1f} GB free",
        mend="`trifront store prune` drops stored engines" if scarce else "",
    )


def _reach(uri: str) -> None:
    """Ask an MLflow server how it is.

    Raises:
        UsageError: The URI means nothing to MLflow.
        TrackingError: The server does not answer, or not as MLflow does.
    """
    check_uri(uri)
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urlopen(f"{uri.rstrip('/')}/health", timeout=_PATIENCE_S) as answer:  # noqa: S310 (http alone)
            answer.read()
    except OSError as error:
        raise TrackingError(
            f"MLflow {without_secrets(uri)} does not answer: {getattr(error, 'reason', error)}",
            hint="start the server, or correct the URI",
        ) from error
