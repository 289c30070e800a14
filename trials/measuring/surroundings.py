"""What is read around a stretch of load: the clocks of the machine, and the meters of its GPU.

The order has a reason: what takes longest stands furthest from the load, and the energy of the GPU
next to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from trials.machine.gpu_source import GpuSource
from trials.measurement import BlockOnGpu
from trials.measuring import contention, gpu_watch

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The readings at both ends of a stretch of load.

    Attributes:
        gpu: None where there are no meters.
    """

    before: contention.Reading
    after: contention.Reading
    gpu: tuple[gpu_watch.Reading, gpu_watch.Reading] | None

    @property
    def own_s(self) -> float:
        """CPU time of this process, seconds."""
        return self.after.own_s - self.before.own_s

    def on_gpu(self, *, load_s: float, samples: int) -> BlockOnGpu | None:
        """Say what the GPU did; None where that is not known.

        Args:
            load_s: How long the load lasted that answered ``samples``, seconds.
            samples: That were answered.
        """
        if self.gpu is None:
            return None
        return gpu_watch.on_gpu(*self.gpu, load_s=load_s, samples=samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Whom to ask around a stretch of load.

    Attributes:
        clocks: Of the machine.
        gpu: The meters of the GPU that runs the load; None where there are none.
    """

    clocks: Callable[[], contention.Reading] = contention.read
    gpu: GpuSource | None = None

    def around(self, run: Callable[[], Result]) -> tuple[Result, Span]:
        """Let a stretch of load run and read everything before and after it."""
        clocks, gpu = self.clocks, self.gpu
        if gpu is None:
            before = clocks()
            result = run()
            return result, Span(before=before, after=clocks(), gpu=None)
        began_s = perf_counter()
        first = gpu.state()
        took_s = perf_counter() - began_s
        before = clocks()
        begin = gpu_watch.Reading(state=first, energy=gpu.energy(), took_s=took_s)
        result = run()
        ended_s = perf_counter()
        used, last = gpu.energy(), gpu.state()
        end = gpu_watch.Reading(state=last, energy=used, took_s=perf_counter() - ended_s)
        return result, Span(before=before, after=clocks(), gpu=(begin, end))
