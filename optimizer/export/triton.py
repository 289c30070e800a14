"""The format ``triton``: a model repository that Triton Inference Server loads as it is.

::

    DIR/                      the repository: tritonserver --model-repository=DIR
    ├── NAME/                 the model; the server wants its folder to have its name
    │   ├── config.pbtxt
    │   ├── labels.txt        for classifiers
    │   └── 1/                its version: model.onnx, model.plan, or model.py with model.onnx
    └── README.md, manifest.json, …   files beside it, which the server does not look at

On a CPU the model that is served is the portable one, because a server brings an ONNX Runtime of
its own: the engine that was measured is made for one version and one kind of processor. A model
that trifront says otherwise before it builds (int8, see ``RewritesModels``) is served as it was
built.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from optimizer.errors import ExportError, UsageError
from optimizer.export import triton_python_model
from optimizer.export.attachments import BLOCKS, SPACE, write_attachments
from optimizer.export.checksums import SUMS
from optimizer.export.converted import refuse_fake
from optimizer.export.format_name import TritonBackend
from optimizer.export.gathering import Export
from optimizer.export.manifest import MANIFEST, Role
from optimizer.export.readme import checking_of, head_of
from optimizer.export.references_file import REFERENCES
from optimizer.export.triton_config import TritonModel, config_text
from search_spaces.deployment import Precision
from search_spaces.space import SearchSpace, TaskKind
from trials.engine_files import Building, rewrite_model

_LABELS = "labels.txt"
_US_PER_S = 1e6
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TAKEN = (MANIFEST, SUMS, REFERENCES, BLOCKS, SPACE, "README.md", "model.onnx")
_SERVING = {  # who serves what was measured; the first one unless told
    "ort": (TritonBackend.ONNXRUNTIME, TritonBackend.PYTHON),
    "tensorrt": (TritonBackend.TENSORRT,),
}
# numbers of Triton's onnxruntime backend; its default is all
_GRAPH_LEVELS = {"basic": -1, "extended": 1, "disable": 2}
_ORT_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disable": "ORT_DISABLE_ALL",
}


class TritonFormat:
    """A repository of one model.

    Args:
        model_name: What clients call it; None for the name of the space.
        backend: What runs it; None for the one that suits the study's own backend.

    Raises:
        UsageError: A name that cannot be a folder and an address.
    """

    def __init__(self, *, model_name: str | None, backend: TritonBackend | None) -> None:
        if model_name is not None:
            _check_name(model_name)
        self._model_name = model_name
        self._backend = backend

    @property
    def name(self) -> str:
        """Name on the command line and in the manifest."""
        return "triton"

    def refuse(self, space: SearchSpace) -> None:
        """Refuse a study whose engines the wanted backend does not run.

        Raises:
            ExportError: With the backends that do.
            UsageError: The space's name cannot be the model's.
        """
        refuse_fake(space, what="a Triton model")
        _check_name(self._model_name or space.name)
        known = _SERVING.get(space.backend, ())
        if not known or (self._backend is not None and self._backend not in known):
            wanted = "Triton" if self._backend is None else f"Triton's backend {self._backend}"
            raise ExportError(
                f"{wanted} does not serve engines of backend '{space.backend}'",
                hint=f"use --triton-backend {' or '.join(known)}" if known else "",
            )

    def write(self, export: Export, folder: Path) -> Mapping[str, Role]:
        """Write the repository.

        Raises:
            ExportError: The engine was measured with a provider that it does not name.
            OSError: The disk refuses.
        """
        _refuse_provider(export)
        name = self._model_name or export.space.name
        backend = self._backend or _SERVING[export.spec.backend][0]
        (folder / name / "1").mkdir(parents=True)
        roles = {
            **_write_version(export, folder, f"{name}/1", backend),
            **_write_labels(export, folder / name),
            "README.md": Role.README,
            f"{name}/config.pbtxt": Role.CONFIG,
        }
        labels = _LABELS if f"{name}/{_LABELS}" in roles else None
        config = config_text(_model(export, name, backend, labels=labels))
        (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
        (folder / "README.md").write_text(_readme(export, name, backend), encoding="utf-8")
        return {**roles, **write_attachments(export, folder)}


def _refuse_provider(export: Export) -> None:
    """Refuse what Triton would serve otherwise than it was measured: on a GPU, by its defaults."""
    provider = dict(export.spec.options).get("provider", "cpu")
    if provider != "cpu":
        raise ExportError(
            f"a Triton model of provider {provider} is not written yet: it would be served by "
            "other settings than were measured",
            hint="use --format bundle or --format onnx",
        )


def _check_name(name: str) -> None:
    """Refuse what cannot be a folder beside the export's own files and a part of an address."""
    if _NAME.fullmatch(name) is None or name in _TAKEN:
        raise UsageError(
            f"'{name}' is no name of a model",
            hint="give --model-name up to 64 letters, digits, '.', '_' and '-'",
        )


def _write_version(
    export: Export, folder: Path, version: str, backend: TritonBackend
) -> dict[str, Role]:
    """Write what is served, and the portable model at the root where that is another file."""
    if backend is TritonBackend.TENSORRT:
        shutil.copyfile(export.engine, folder / version / "model.plan")
        shutil.copyfile(export.model, folder / "model.onnx")
        return {f"{version}/model.plan": Role.ENGINE, "model.onnx": Role.MODEL}
    roles = {f"{version}/model.onnx": Role.MODEL}
    served = folder / version / "model.onnx"
    if rewrite_model(Building(model=export.model, spec=export.spec, plan=served)):
        shutil.copyfile(export.model, folder / "model.onnx")
        roles = {f"{version}/model.onnx": Role.SERVED, "model.onnx": Role.MODEL}
    else:
        shutil.copyfile(export.model, served)
    if backend is TritonBackend.PYTHON:
        shutil.copyfile(triton_python_model.__file__, folder / version / "model.py")
        roles[f"{version}/model.py"] = Role.CODE
    return roles


def _write_labels(export: Export, folder: Path) -> dict[str, Role]:
    """Write a class a line: its name where the data name it, else its number."""
    shape = export.recorded.outputs[0].shape
    if export.space.task.kind is not TaskKind.CLASSIFICATION or len(shape) < 2:  # noqa: PLR2004 - samples, classes
        return {}
    classes = shape[1] or 0
    names = export.recorded.classes or ()
    if not classes and not names:
        return {}
    # a model may know more classes than the data have folders
    lines = [*names[: classes or None], *map(str, range(len(names), classes))]
    (folder / _LABELS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {f"{folder.name}/{_LABELS}": Role.LABELS}


def _model(
    export: Export, name: str, backend: TritonBackend, *, labels: str | None
) -> TritonModel:
    deployment = export.outcome.deployment
    level = str(dict(export.spec.options).get("graph_optimization", "all"))
    # answers of dynamic int8 depend on who shares a batch, so requests are kept apart
    is_shared = deployment.precision is not Precision.INT8_DYNAMIC
    return TritonModel(
        name=name,
        backend=backend.value,
        inputs=export.recorded.inputs,
        outputs=export.recorded.outputs,
        batch_size=deployment.batch_size,
        queue_delay_us=_queue_delay_us(export) if is_shared else None,
        preferred=_preferred(export),
        instances=deployment.concurrency,
        on_gpu=backend is TritonBackend.TENSORRT,
        labels=labels,
        graph_level=_GRAPH_LEVELS.get(level) if backend is TritonBackend.ONNXRUNTIME else None,
        parameters=_parameters(export, backend, level),
    )


def _queue_delay_us(export: Export) -> int:
    """Return how long requests wait for others: as measured, else half of a batch's p50."""
    load = export.outcome.deployment.load
    if load is not None:
        return load.max_queue_delay_us
    return max(1, round(export.outcome.speed.latency_p50_s.value * _US_PER_S / 2))


def _preferred(export: Export) -> tuple[int, ...]:
    largest = export.outcome.deployment.batch_size
    chosen = [size for size in export.space.plan.preferred_batch_sizes if size <= largest]
    return tuple(chosen) or (largest,)


def _parameters(export: Export, backend: TritonBackend, level: str) -> tuple[tuple[str, str], ...]:
    if backend is TritonBackend.TENSORRT:
        return ()
    options = dict(export.outcome.deployment.options)
    threads = ("intra_op_thread_count", str(options.get("threads", 1)))
    if backend is TritonBackend.ONNXRUNTIME:
        return (threads, ("inter_op_thread_count", "1"))
    return (
        threads,
        ("graph_optimization_level", _ORT_LEVELS[level]),
        ("spinning", "1" if options.get("spinning", True) else "0"),
    )


def _readme(export: Export, name: str, backend: TritonBackend) -> str:
    needs = {
        TritonBackend.ONNXRUNTIME: "The server needs its ONNX Runtime backend.",
        TritonBackend.TENSORRT: "The server needs the TensorRT version that built the plan.",
        TritonBackend.PYTHON: (
            "The server's Python needs `numpy` and `onnxruntime`; `1/model.py` runs the model."
        ),
    }
    measured = "" if backend is TritonBackend.TENSORRT else _ON_CPU
    serving = f"""\
## Serving it

```sh
tritonserver --model-repository=.
curl localhost:8000/v2/models/{name}/config
```

{needs[backend]} The files beside the folder `{name}` are not the server's business.

Requests of one sample each are put together to the measured batch size, and as many batches run
at once as requests were in flight.
{measured}"""
    return "\n".join((head_of(export), serving, checking_of(export)))


_ON_CPU = """
The numbers above were measured with trifront's own engine, without a server: the server's ONNX
Runtime optimizes `model.onnx` itself, and requests pass through HTTP or gRPC and a queue. Measure
again in front of the server before you promise a latency.
"""
