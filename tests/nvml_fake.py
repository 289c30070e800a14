"""A stand-in for the module pynvml: the calls that we make, answered for made-up cards.

``tests/trials/test_nvml.py`` sees that every name here is one of the real module's.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class NVMLError(Exception):
    pass


@dataclass
class MadeUpCard:
    uuid: str = "GPU-1111"
    name: str = "NVIDIA H100"
    energy_mj: int | None = 1_000
    mig: int | None = 0
    reasons: int = 0
    field_values: dict[int, int] = field(default_factory=dict)
    pids: tuple[int, ...] = (os.getpid(),)
    silent: tuple[str, ...] = ()  # calls that this card does not answer
    parent: "MadeUpCard | None" = None  # of a part


class MadeUpNvml:
    """The library, over cards in the order of the bus."""

    NVMLError = NVMLError
    NVML_SUCCESS = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_FEATURE_ENABLED = 1
    NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP = 74
    NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN = 269
    NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN = 270
    NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN = 271

    def __init__(
        self, *cards: MadeUpCard, parts: Sequence[MadeUpCard] = (), error: str = ""
    ) -> None:
        self.made_up = cards
        self.parts = tuple(parts)
        self.error = error
        self.users = 0

    def nvmlInit(self) -> None:  # noqa: N802 - the library's names
        if self.error:
            raise NVMLError(self.error)
        self.users += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.users -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.made_up)

    def nvmlDeviceGetHandleByIndex(self, at: int) -> MadeUpCard:  # noqa: N802
        return self.made_up[at]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> MadeUpCard:  # noqa: N802
        for card in (*self.made_up, *self.parts):
            if card.uuid == uuid:
                return card
        raise NVMLError("Not Found")

    def nvmlDeviceGetUUID(self, card: MadeUpCard) -> str:  # noqa: N802
        return card.uuid

    def nvmlDeviceGetName(self, card: MadeUpCard) -> str:  # noqa: N802
        return card.name

    def nvmlDeviceGetCudaComputeCapability(self, card: MadeUpCard) -> tuple[int, int]:  # noqa: N802
        return self._answered(card, "nvmlDeviceGetCudaComputeCapability", (9, 0))

    def nvmlDeviceGetPersistenceMode(self, card: MadeUpCard) -> int:  # noqa: N802
        return self._answered(card, "nvmlDeviceGetPersistenceMode", 1)

    def nvmlDeviceGetMigMode(self, card: MadeUpCard) -> list[int]:  # noqa: N802
        if card.mig is None:
            raise NVMLError("Not Supported")
        return [card.mig, card.mig]

    def nvmlDeviceIsMigDeviceHandle(self, card: MadeUpCard) -> int:  # noqa: N802
        return int(card.parent is not None)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, card: MadeUpCard) -> MadeUpCard:  # noqa: N802
        assert card.parent is not None
        return card.parent

    def nvmlDeviceGetTotalEnergyConsumption(self, card: MadeUpCard) -> int:  # noqa: N802
        if card.energy_mj is None:
            raise NVMLError("Not Supported")
        return card.energy_mj

    def nvmlDeviceGetClockInfo(self, card: MadeUpCard, kind: int) -> int:  # noqa: N802
        return self._answered(card, "nvmlDeviceGetClockInfo", 1_980 if kind == 1 else 2_619)

    def nvmlDeviceGetTemperature(self, card: MadeUpCard, sensor: int) -> int:  # noqa: N802
        return self._answered(card, "nvmlDeviceGetTemperature", 55 + sensor)

    def nvmlDeviceGetMemoryInfo(self, card: MadeUpCard) -> Any:  # noqa: N802
        return self._answered(card, "nvmlDeviceGetMemoryInfo", SimpleNamespace(used=7_000_000))

    def nvmlDeviceGetCurrentClocksEventReasons(self, card: MadeUpCard) -> int:  # noqa: N802
        return self._answered(card, "nvmlDeviceGetCurrentClocksEventReasons", card.reasons)

    def nvmlDeviceGetFieldValues(self, card: MadeUpCard, fields: Sequence[int]) -> list[Any]:  # noqa: N802
        known = card.field_values
        return [
            SimpleNamespace(
                nvmlReturn=0 if one in known else 3,
                value=SimpleNamespace(ullVal=known.get(one, 0)),
            )
            for one in fields
        ]

    def nvmlDeviceGetComputeRunningProcesses(self, card: MadeUpCard) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in card.pids]

    @staticmethod
    def _answered(card: MadeUpCard, call: str, answer: Answer) -> Answer:
        if call in card.silent:
            raise NVMLError("Not Supported")
        return answer
