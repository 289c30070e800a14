"""Which flavour of TensorRT is installed, and which one this machine's GPU wants.

References:
    NVIDIA, TensorRT 10.16 and TensorRT for RTX 1.7, support matrices: the first serves every GPU
    from compute capability 7.5 on, the second those that it names as build targets.
"""

from collections.abc import Callable
from dataclasses import dataclass

from trials.backends.trt_gpu import Gpu, gpu_here
from trials.backends.trt_library import Library, library
from trials.errors import UnsupportedError

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


def advice(
    *, load: Callable[[], Library] = library, look: Callable[[], Gpu | None] = gpu_here
) -> Advice:
    """Look at the library and the GPU; never raises.

    Args:
        load: Gives the library.
        look: Tells which GPU is here.
    """
    try:
        gpu = look()
    except UnsupportedError as error:
        return Advice(is_there=False, detail=str(error))
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


def _of_rtx(found: Library, gpu: Gpu | None) -> Advice:
    targets = found.targets()
    detail = f"{found.name} {found.version} (for RTX), builds for {', '.join(targets)}"
    if gpu is not None and f"SM{gpu.compute_capability}" not in targets:
        mend = f"{_DATA_CENTRE}: TensorRT for RTX does not list the {_called(gpu)}"
        return Advice(is_there=True, detail=detail, mend=mend)
    return Advice(is_there=True, detail=detail)


def _wanted(gpu: Gpu | None) -> str:
    if gpu is None:
        return f"{_RTX} builds engines without a GPU, for {', '.join(_RTX_TARGETS)}"
    if f"SM{gpu.compute_capability}" in _RTX_TARGETS:
        return f"{_DATA_CENTRE} or {_RTX}: both serve the {_called(gpu)}"
    return f"{_DATA_CENTRE} serves the {_called(gpu)}"


def _called(gpu: Gpu) -> str:
    return f"{gpu.name} (SM{gpu.compute_capability})"
