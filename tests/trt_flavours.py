"""TensorRT's flavours for tests: real TensorRT for RTX, seen through the names of another.

The data-centre flavour installs on machines with its GPUs alone. Here its branch of our code runs
on a proxy that has exactly the names that the record of a version lists, and lets TensorRT for RTX
do the work, for a GPU that the proxy pretends to have. What our code uses is written down.
"""

import json
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from trials.backends.trt_library import Library, library_from
from trials.devices.device import DeviceFacts
from trials.devices.fake import FakeDevice

Names = dict[str, frozenset[str]]
RECORD = Path(__file__).parent / "trials" / "tensorrt_names.json"
_SUBCLASSED = ("ILogger", "IProgressMonitor")  # real ones, or the library would not call ours
_MODULE = "module"


class Elsewhere(FakeDevice):
    """A computed device that says to be another."""

    def __init__(self, name: str, capability: tuple[int, int]) -> None:
        super().__init__()
        self._name, self._capability = name, capability

    @property
    def facts(self) -> DeviceFacts:
        return replace(
            super().facts, name=self._name, compute_capability=self._capability, driver="590.44"
        )


def ada() -> Elsewhere:
    return Elsewhere("NVIDIA L4", (8, 9))


def hopper() -> Elsewhere:
    return Elsewhere("NVIDIA H200", (9, 0))


def recorded_names() -> dict[str, Names]:
    """Return, by version, the members of each class and, under ``module``, the classes."""
    document = json.loads(RECORD.read_text(encoding="utf-8"))
    found = {}
    for version in document["versions"]:
        names = {kind: frozenset(members) for kind, members in version["names"].items()}
        found[version["tag"]] = names | {_MODULE: frozenset(names)}
    return found


class Seen:
    """A library or one of its objects, of which only some names are there.

    Attributes:
        seen_used: (class, name) of everything that was used, shared by all that belongs together.
    """

    def __init__(
        self, real: Any, kind: str, used: set[tuple[str, str]], allowed: Names | None
    ) -> None:
        self.__dict__.update(seen_real=real, seen_kind=kind, seen_used=used, seen_allowed=allowed)

    def seen_check(self, name: str) -> None:
        kind, allowed = self.seen_kind, self.seen_allowed
        if allowed is not None and name not in allowed.get(kind, frozenset()):
            raise AttributeError(f"{kind} has no {name}")
        self.seen_used.add((kind, name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python's own
            return getattr(self.seen_real, name)
        self.seen_check(name)
        value = getattr(self.seen_real, name)
        return value if name in _SUBCLASSED else self.seen_wrapped(value, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.seen_check(name)
        setattr(self.seen_real, name, _bare(value))

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        with warnings.catch_warnings():
            # in TensorRT for RTX timing caches do nothing and say so
            warnings.simplefilter("ignore", DeprecationWarning)
            result = self.seen_real(
                *map(_bare, args), **{name: _bare(value) for name, value in keywords.items()}
            )
        if type(result).__name__ == "IBuilderConfig" and self.seen_allowed is not None:
            result.num_compute_capabilities = 1
            library = import_module("tensorrt_rtx")
            result.set_compute_capability(library.ComputeCapability.SM89, 0)
        return self.seen_wrapped(result, type(result).__name__)

    def seen_wrapped(self, value: Any, kind: str) -> Any:
        if isinstance(value, type) or callable(value) or _is_object(value):
            name = type(value).__name__ if _is_object(value) else kind
            return Seen(value, name, self.seen_used, self.seen_allowed)
        return value


def _is_object(value: Any) -> bool:
    kind = type(value)
    is_enum = hasattr(kind, "__members__")
    return (
        kind.__module__.startswith("tensorrt_rtx")
        and not is_enum
        and kind.__name__
        not in (
            "Dims",
            "IHostMemory",
        )
    )


def _bare(value: Any) -> Any:
    return value.seen_real if isinstance(value, Seen) else value


def data_centre(tag: str = "v11.1") -> Library:
    """Return the data-centre flavour of a recorded version, on an Ada GPU."""
    module = Seen(import_module("tensorrt_rtx"), _MODULE, set(), recorded_names()[tag])
    return library_from(module, name="tensorrt", version=tag.removeprefix("v"))


def watched_rtx() -> Library:
    """Return TensorRT for RTX as it is, with a note of everything that is used of it."""
    real = import_module("tensorrt_rtx")
    module = Seen(real, _MODULE, set(), None)
    return Library(name="tensorrt_rtx", version=real.__version__, module=module, is_rtx=True)


def used_of(library: Library) -> set[tuple[str, str]]:
    """Return (class, name) of everything that was used of a watched library."""
    used: set[tuple[str, str]] = library.module.seen_used
    return used
