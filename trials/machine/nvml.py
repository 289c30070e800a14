"""NVIDIA's management library (NVML) through nvidia-ml-py; nothing else here knows it.

It only reads: clocks, limits and modes stay as they are found. A card is named by its UUID,
because NVML counts cards by their bus and CUDA by their speed, or as CUDA_VISIBLE_DEVICES says.

What a card does not tell is None. Below a driver that does not answer there is no card, which is
an error only for whoever asks for one.

References:
    NVML API reference, device queries: the energy counter is in millijoules since the driver was
        loaded, of Volta and newer; a part of a card (MIG) has none of its own.
    Yang, Z. et al. (2024), Part-time power measurements: nvidia-smi's lack of attention. SC24. How
        often meters of NVIDIA GPUs move: every 20 to 100 ms.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter
from typing import Any

from trials.errors import UnsupportedError
from trials.machine.gpu_source import GpuEnergy, GpuIdentity, GpuSource, GpuState, Reason
from trials.machine.visible_gpus import uuid_of_ordinal

Load = Callable[[], Any]

_J_PER_MJ = 1e-3
_UPDATE_S = 0.1  # the slowest that was reported
_COUNTERS = {
    Reason.POWER_CAP: "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP",
    Reason.THERMAL: "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN",
    Reason.HW_THERMAL: "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
    Reason.POWER_BRAKE: "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
}


def load_pynvml() -> Any:
    """Import nvidia-ml-py, whose module is called pynvml."""
    return import_module("pynvml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU of this machine.

    Attributes:
        compute_capability: Such as ``9.0``.
        is_mig: Whether it is cut into parts; None where it cannot be.
        is_persistent: Whether the driver stays loaded while nobody uses it; None likewise.
        processes: That compute on it now, of anybody.
    """

    uuid: str
    name: str
    compute_capability: str
    driver: str
    is_mig: bool | None
    is_persistent: bool | None
    processes: int


@contextmanager
def session(load: Load = load_pynvml) -> Iterator[Any]:
    """Initialize the library for as long as it is needed.

    Raises:
        UnsupportedError: It is not installed, or no driver answers.
    """
    try:
        nvml = load()
    except ImportError as error:
        raise UnsupportedError(
            "nothing can ask an NVIDIA GPU here: pip install nvidia-ml-py"
        ) from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise UnsupportedError(f"no NVIDIA GPU: no driver answers ({error})") from error
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def cards(load: Load = load_pynvml) -> tuple[Card, ...]:
    """Describe every GPU in the order of the bus.

    Raises:
        UnsupportedError: There is none, or it cannot be asked.
    """
    with session(load) as nvml, _refused(nvml):
        found = tuple(_card(nvml, handle) for handle in _handles(nvml))
    if not found:
        raise UnsupportedError("no NVIDIA GPU: the driver knows none")
    return found


def first_card(load: Load = load_pynvml) -> Card:
    """Describe the card that CUDA shows first to this process, or that of its part.

    Raises:
        UnsupportedError: There is none, or it cannot be told which.
    """
    found = cards(load)
    uuid = uuid_of_ordinal(0, [(card.uuid, card.name) for card in found], os.environ)
    return next((card for card in found if card.uuid == uuid), found[0])


@contextmanager
def meter(*, uuid: str | None = None, load: Load = load_pynvml) -> Iterator[GpuSource | None]:
    """Open the meters of the GPU that an engine runs on; None where nobody can read them.

    Args:
        uuid: As CUDA tells it, the surest; None for the GPU that CUDA shows first.
        load: Loads the library.
    """
    with ExitStack() as stack:
        try:
            nvml = stack.enter_context(session(load))
            source = _source(nvml, uuid)
        except UnsupportedError:
            source = None  # the numbers of a trial do not depend on it
        yield source


def why_no_energy(*, uuid: str | None = None, load: Load = load_pynvml) -> str:
    """Say why the energy of a GPU cannot be told; empty where it can.

    Args:
        uuid: As CUDA tells it, the surest; None for the GPU that CUDA shows first.
        load: Loads the library.
    """
    try:
        with session(load) as nvml, _refused(nvml):
            gpu = NvmlGpu(nvml, uuid or _first_uuid(nvml))
            told = gpu.energy().total_j is not None
    except UnsupportedError as error:
        return str(error)
    if told:
        return ""
    if gpu.identity.is_mig:
        return f"the energy counter of {gpu.identity.name} is that of all its parts (MIG)"
    return f"{gpu.identity.name} has no energy counter: it takes a card of Volta or newer"


class NvmlGpu:
    """The meters of one card, or of a part of one; see ``gpu_source.GpuSource``."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        """Find the card.

        Raises:
            NVMLError: The library's own, where there is none of that UUID.
        """
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        is_part = bool(self._told(nvml.nvmlDeviceIsMigDeviceHandle, self._handle))
        # clocks, heat and energy are those of the whole card
        self._card = (
            nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self._handle)
            if is_part
            else self._handle
        )
        self._is_mig = is_part or bool(_mig_of(nvml, self._card))
        self._name = str(nvml.nvmlDeviceGetName(self._card))
        self._uuid = uuid
        self._seen_us = 0  # the newest sample of what processes did, on NVML's clock
        self._working()  # what was before is no part of any reading

    @property
    def identity(self) -> GpuIdentity:
        """Which card it is."""
        return GpuIdentity(uuid=self._uuid, name=self._name, is_mig=self._is_mig)

    @property
    def update_s(self) -> float:
        """How often the energy counter moves, at least, seconds."""
        return _UPDATE_S

    def energy(self) -> GpuEnergy:
        """Read the energy counter, which is nobody's where a card is cut into parts."""
        total_mj = (
            None
            if self._is_mig
            else self._told(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._card)
        )
        at_s = perf_counter()
        return GpuEnergy(at_s=at_s, total_j=None if total_mj is None else total_mj * _J_PER_MJ)

    def state(self) -> GpuState:
        """Read clocks, heat, memory, what holds the clocks back, and who else computes."""
        nvml, card = self._nvml, self._card
        reasons = self._told(nvml.nvmlDeviceGetCurrentClocksEventReasons, card)
        memory = self._told(nvml.nvmlDeviceGetMemoryInfo, self._handle)
        present, busy, mine = self._present(), self._working(), os.getpid()
        return GpuState(
            sm_clock_mhz=self._told(nvml.nvmlDeviceGetClockInfo, card, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._told(nvml.nvmlDeviceGetClockInfo, card, nvml.NVML_CLOCK_MEM),
            temperature_c=self._told(
                nvml.nvmlDeviceGetTemperature, card, nvml.NVML_TEMPERATURE_GPU
            ),
            memory_bytes=None if memory is None else int(memory.used),
            reasons=Reason(reasons or 0),
            held_back=self._held_back(),
            others=len(present - {mine}) if mine in present else max(0, len(present) - 1),
            busy_others=len(busy - {mine}) if mine in present else max(0, len(busy) - 1),
        )

    def _held_back(self) -> tuple[tuple[Reason, int], ...]:
        """Read the counters behind the reasons, of drivers that have them."""
        nvml = self._nvml
        fields = [getattr(nvml, name) for name in _COUNTERS.values()]
        values = self._told(nvml.nvmlDeviceGetFieldValues, self._card, fields) or ()
        return tuple(
            (reason, int(one.value.ullVal))
            for reason, one in zip(_COUNTERS, values, strict=False)
            if one.nvmlReturn == nvml.NVML_SUCCESS
        )

    def _present(self) -> set[int]:
        """Name the processes that have a context here, whether they compute or not."""
        found = self._told(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle) or ()
        return {int(one.pid) for one in found}

    def _working(self) -> set[int]:
        """Name those that the multiprocessors worked for since this was asked before.

        Empty where nobody worked, and where it is not told: parts of cards (MIG).
        """
        ask = self._nvml.nvmlDeviceGetProcessUtilization
        found = self._told(ask, self._handle, self._seen_us) or ()
        self._seen_us = max([self._seen_us, *(int(one.timeStamp) for one in found)])
        return {int(one.pid) for one in found if one.smUtil > 0}

    def _told(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """Ask for one thing; None where this card does not tell."""
        try:
            return ask(*arguments)
        except self._nvml.NVMLError:
            return None


@contextmanager
def _refused(nvml: Any) -> Iterator[None]:
    """Raise what the library raises as an error of ours."""
    try:
        yield
    except nvml.NVMLError as error:
        raise UnsupportedError(f"the NVIDIA driver does not tell: {error}") from error


def _source(nvml: Any, uuid: str | None) -> NvmlGpu:
    with _refused(nvml):
        return NvmlGpu(nvml, uuid or _first_uuid(nvml))


def _first_uuid(nvml: Any) -> str:
    known = [(_uuid_of(nvml, one), str(nvml.nvmlDeviceGetName(one))) for one in _handles(nvml)]
    return uuid_of_ordinal(0, known, os.environ)


def _uuid_of(nvml: Any, handle: Any) -> str:
    return str(nvml.nvmlDeviceGetUUID(handle))


def _handles(nvml: Any) -> list[Any]:
    return [nvml.nvmlDeviceGetHandleByIndex(at) for at in range(nvml.nvmlDeviceGetCount())]


def _card(nvml: Any, handle: Any) -> Card:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Card(
        uuid=_uuid_of(nvml, handle),
        name=str(nvml.nvmlDeviceGetName(handle)),
        compute_capability=f"{major}.{minor}",
        driver=str(nvml.nvmlSystemGetDriverVersion()),
        is_mig=_mig_of(nvml, handle),
        is_persistent=_persistence_of(nvml, handle),
        processes=len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
    )


def _mig_of(nvml: Any, handle: Any) -> bool | None:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        return None  # a card that cannot be cut
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _persistence_of(nvml: Any, handle: Any) -> bool | None:
    try:
        return bool(nvml.nvmlDeviceGetPersistenceMode(handle) == nvml.NVML_FEATURE_ENABLED)
    except nvml.NVMLError:
        return None
