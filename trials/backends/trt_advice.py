"""Which flavour of TensorRT is installed, and which one this machine's GPU wants.

References:
    NVIDIA, TensorRT 10.16 and TensorRT for RTX 1.7, support matrices: the first serves every GPU
    from compute capability 7.5 on, the second those that it names as build targets.
"""

from collections.abc import Callable
from dataclasses import dataclass

from trials.backends.trt_library import Library, library
from trials.errors import UnsupportedError
from trials.machine.nvml import Card, first_card

# of TensorRT for RTX 1.7, to be asked of the library itself where that is installed
_RTX_TARGETS = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
_DATA_CENTRE = "pip install 'trifront[tensorrt]'"
_RTX = "pip install 'trifront[tensorrt-rtx]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What was found, and what to do about it.

    Attributes:
        is_there: A flavour is installed that builds for something.
        mend: What to install; empty where nothing is to be done.
    """

    is_there: bool
    detail: str
    mend: str = ""


def card_here() -> Card | None:
    """Return the card that CUDA shows first; None where there is none to be asked."""
    try:
        return first_card()
    except UnsupportedError:
        return None


def advice(
    *, load: Callable[[], Library] = library, look: Callable[[], Card | None] = card_here
) -> Advice:
    """Look at the library and the GPU; never raises.

    Args:
        load: Gives the library.
        look: Tells which GPU is here.
    """
    gpu = look()
    try:
        found = load()
    except UnsupportedError:
        return Advice(is_there=False, detail="not installed", mend=_wanted(gpu))
    if found.is_rtx:
        return _of_rtx(found, gpu)
    if gpu is None:
        return Advice(
            is_there=False,
            detail=f"{found.name} {found.version} (data-centre), which builds on a GPU alone",
            mend=f"{_RTX} builds engines without a GPU",
        )
    detail = f"{found.name} {found.version} (data-centre), for the {_called(gpu)}"
    return Advice(is_there=True, detail=detail)


def _of_rtx(found: Library, gpu: Card | None) -> Advice:
    targets = found.targets()
    detail = f"{found.name} {found.version} (for RTX), builds for {', '.join(targets)}"
    if gpu is not None and _target_of(gpu) not in targets:
        mend = f"{_DATA_CENTRE}: TensorRT for RTX does not list the {_called(gpu)}"
        return Advice(is_there=True, detail=detail, mend=mend)
    return Advice(is_there=True, detail=detail)


def _wanted(gpu: Card | None) -> str:
    if gpu is None:
        return f"{_RTX} builds engines without a GPU, for {', '.join(_RTX_TARGETS)}"
    if _target_of(gpu) in _RTX_TARGETS:
        return f"{_DATA_CENTRE} or {_RTX}: both serve the {_called(gpu)}"
    return f"{_DATA_CENTRE} serves the {_called(gpu)}"


def _called(gpu: Card) -> str:
    return f"{gpu.name} ({_target_of(gpu)})"


def _target_of(gpu: Card) -> str:
    return f"SM{gpu.compute_capability.replace('.', '')}"
