"""The bench: everything that stays fixed while the deployments of one space are tried.

Opening it reads and checks all input once (variants, data, what the backend honours), so that bad
input is refused before the first trial. A bench belongs to one process and one thread.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from search_spaces.deployment import Deployment, Precision, kept_layers
from search_spaces.space import SearchSpace, Task, TaskKind
from trials.abilities import BuildsAtLength, Workshop
from trials.backend import Backend, EngineSpec, ModelForm
from trials.backends.catalog import backend_named
from trials.capabilities import (
    EngineIdentity,
    engine_identity,
    engine_spec,
    refuse_ignored,
    refuse_unmetered,
)
from trials.conversions import Conversions
from trials.data.dataset import Dataset, LayerSplit, Split, dataset_from_task, synthetic_dataset
from trials.data.feeding import feeds
from trials.errors import DataError, UnsupportedError
from trials.inspection import BuildLog
from trials.inspection_file import Inspection, keep_inspection
from trials.models import torch_precision
from trials.models.layers import Product
from trials.models.signature import Signature
from trials.models.users_code import code_digest, function_from_name
from trials.models.variants import Model, model_from_source
from trials.scoring.scoring import check_labels
from trials.sensitivity import LayerEffect
from trials.store.entries import Entry
from trials.store.store import Obtained, Store

OnProgress = Callable[[str, float], None]


def ignore_progress(name: str, share: float) -> None:
    """Listen to nobody."""
    del name, share


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFacts:
    """What identifies the input of a search.

    Attributes:
        digests: SHA-256 by ``variant:<name>``, ``data:<split>`` and, for a custom task,
            ``code:metric``; sorted by name.
        samples: (split, number of samples).
        environment: Versions and device facts that change engines.
        engines: Which deployments share an engine.
    """

    digests: tuple[tuple[str, str], ...]
    samples: tuple[tuple[str, int], ...]
    environment: tuple[tuple[str, str], ...]
    engines: EngineIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A deployment whose engine is in the store.

    Attributes:
        convert_s: Seconds that conversion took just now; 0.0 where the store had it.
        build_s: Likewise for the build.
    """

    spec: EngineSpec
    variant_digest: str
    model: Entry
    engine: Entry
    convert_s: float
    build_s: float


class Bench:
    """One space with its variants, data, backend and store; made by :func:`open_bench`.

    Attributes:
        metric_code: Digest of a custom metric's code, None for other tasks.
        conversions: The models that engines are built from.
    """

    def __init__(
        self, space: SearchSpace, store: Store, *, backend: Backend, dataset: Dataset
    ) -> None:
        self.space = space
        self.store = store
        self.backend = backend
        self.dataset = dataset
        self.metric_code = _metric_code(space.task)
        self._capabilities = backend.capabilities()
        self._environment = backend.environment()
        self._models = {
            source.name: model_from_source(
                source, space=space, store=store, form=self._capabilities.model_form
            )
            for source in space.variants
        }
        for model in self._models.values():
            if model.facts is not None:
                self._check_data(model.name, model.facts)
        self.conversions = Conversions(
            store, dataset, space.task, metric_code=self.metric_code, source=space.source
        )
        self._refusals: dict[EngineSpec, UnsupportedError] = {}

    @property
    def facts(self) -> BenchFacts:
        """Identify the input of the search."""
        digests = [(f"variant:{model.name}", model.digest) for model in self._models.values()]
        splits = [split for split in self._splits() if split is not None]
        digests += [(f"data:{split.name}", split.digest) for split in splits]
        if self.metric_code is not None:
            digests.append(("code:metric", self.metric_code))
        return BenchFacts(
            digests=tuple(sorted(digests)),
            samples=tuple((split.name, len(split)) for split in splits),
            environment=self._environment,
            engines=engine_identity(self.space, self._capabilities),
        )

    def check_meters(self) -> None:
        """See that what the space asks for is metered on this machine; building needs no meters.

        Raises:
            UnsupportedError: It is not.
        """
        refuse_unmetered(self.space, self.backend)

    def prepare(
        self, deployment: Deployment, *, on_progress: OnProgress = ignore_progress
    ) -> Prepared:
        """Convert the variant and build the engine, or find both in the store.

        An engine that was refused before is refused again at once, for the same reason.

        Args:
            deployment: Whose engine it is.
            on_progress: Told how far the build is, as a ``Workshop`` is.

        Raises:
            InfeasibleError: The engine cannot be built.
            FaultError: The converter or builder broke.
            InputChangedError: The model file was replaced after the bench was opened.
            StoreError: The store cannot be written.
        """
        source = self._models[deployment.variant]
        model = self._converted(source, deployment)
        spec = engine_spec(
            deployment,
            backend_name=self.backend.name,
            model_digest=model.entry.sha256,
            capabilities=self._capabilities,
            environment=self._environment,
            largest_batch=self.space.largest_batch,
        )
        engine = self._built(spec, model.entry.path, on_progress)
        return Prepared(
            spec=spec,
            variant_digest=source.digest,
            model=model.entry,
            engine=engine.entry,
            convert_s=model.seconds if model.made else 0.0,
            build_s=engine.seconds if engine.made else 0.0,
        )

    def layers(self, variant: str, precision: Precision) -> tuple[Product, ...]:
        """List the layers of a variant that a precision lowers.

        Raises:
            UnsupportedError: The precision cannot be made of it.
        """
        return self.conversions.layers(self._convertible(variant), precision)

    def layer_effect(
        self, variant: str, precision: Precision, *, layer: str, split: LayerSplit
    ) -> LayerEffect:
        """Say what lowering one layer of a variant does; an empty name stands for all of them.

        Raises:
            DataError: There is no such split.
            UnsupportedError: The precision cannot be made of it.
            StoreError: The store cannot be written.
        """
        return self.conversions.effect(self._convertible(variant), precision, layer, split)

    def _convertible(self, variant: str) -> Model:
        model = self._models[variant]
        if not model.convertible:
            raise UnsupportedError(
                f"variant '{variant}' is of the fake backend and has no layers; give an ONNX model"
            )
        assert model.form is ModelForm.ONNX, "layers are ranked where models are ONNX files"
        return model

    def _check_data(self, name: str, facts: Signature) -> None:
        """Refuse a model that samples or labels do not suit, before anything is built."""
        where = f"{self.space.source}: variants.{name}"
        one = np.zeros(facts.batch_size or 1, dtype=np.intp)
        samples = self.dataset.search.samples(one, self.dataset.preprocessing)
        feeds(samples, facts.inputs, source=where)
        if self.space.task.kind is not TaskKind.CLASSIFICATION or not facts.outputs:
            return
        match facts.outputs[0].shape:
            case (_, classes) if classes != 1:  # one column is no classifier; scoring says so
                check_labels(self.dataset.search, classes=classes, source=where)
                check_labels(self.dataset.report, classes=classes, source=where)

    def _splits(self) -> Iterator[Split | None]:
        yield self.dataset.calibration
        yield self.dataset.search
        yield self.dataset.report

    def _converted(self, model: Model, deployment: Deployment) -> Obtained:
        if not model.convertible:
            return self.store.obtain(
                "model", {"as-is": model.digest}, lambda out: _copy(model.path, out)
            )
        if model.form is ModelForm.PROGRAM:
            return self._converted_program(model, deployment.precision)
        return self.conversions.converted(
            model, deployment.precision, keep_layers=kept_layers(deployment)
        )

    def _converted_program(self, model: Model, precision: Precision) -> Obtained:
        parts: dict[str, object] = {
            "program": model.digest,
            "precision": precision.value,
            "converters": dict(torch_precision.converter_versions(precision)),
        }
        return self.store.obtain(
            "model", parts, lambda out: torch_precision.convert(model.path, precision, out)
        )

    def _built(self, spec: EngineSpec, model: Path, on_progress: OnProgress) -> Obtained:
        if spec in self._refusals:
            raise self._refusals[spec]
        logs: list[BuildLog] = []

        def make(plan: Path) -> None:
            if isinstance(self.backend, BuildsAtLength):
                shop = Workshop(tell=on_progress, shelf=self.store.shelf(self.backend.name))
                logs.append(self.backend.build_at_length(model, spec, plan, shop))
            else:
                logs.append(self.backend.build(model, spec, plan))

        try:
            built = self.store.obtain("engine", asdict(spec), make)
        except UnsupportedError as error:  # memory may be there again later, support may not
            self._refusals[spec] = error
            raise
        if logs:  # else it was found, and inspected by whoever built it
            self._keep_inspection(spec, model, built, logs[0])
        return built

    def _keep_inspection(
        self, spec: EngineSpec, model: Path, built: Obtained, log: BuildLog
    ) -> None:
        def inspect() -> Inspection:
            return Inspection(
                engine_digest=built.entry.sha256,
                spec=spec,
                build_s=built.seconds,
                layers=self.backend.inspect(model, spec, built.entry.path),
                log=log,
            )

        keep_inspection(self.store, built.entry, inspect)


def open_bench(space: SearchSpace, store: Store, *, target: str | None = None) -> Bench:
    """Read and check everything that a space names.

    Args:
        space: What is read.
        store: Keeps models, engines and scores.
        target: The device that engines are built for; None for this machine's.

    Raises:
        SpaceError: An axis that the backend does not honour, or a batch that a model cannot serve.
        ModelError: A variant that cannot be used.
        DataError: Data that cannot be used.
        UnsupportedError: The backend cannot work on this machine.
    """
    backend = backend_named(space.backend, target=target)
    refuse_ignored(space, backend.capabilities())
    task = space.task
    dataset = (
        synthetic_dataset(space.plan.seed)
        if task.data is None
        else dataset_from_task(task, source=space.source)
    )
    return Bench(space, store, backend=backend, dataset=dataset)


def _metric_code(task: Task) -> str | None:
    """Identify the code of a custom metric: edited, it must not report its old scores."""
    if task.metric is None:
        return None
    function_from_name(task.metric, key="task.metric", refusal=DataError)
    return code_digest()


def _copy(source: Path, out: Path) -> None:
    shutil.copyfile(source, out)
