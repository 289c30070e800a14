"""Drive one engine at one concurrency and measure it: cold call, warm-up, blocks, verdict.

The order and its reasons::

    cold call    timed apart: it pays for lazy allocation and is what a first user waits for
    warm-up      >= 20 calls and >= warmup_s on every worker, together, as in the blocks
    settling     MSER-5 on the first block: a block with a transient is dropped; still drifting
                 after five → flag ``no_steady_state``
    contention   a block during which others took the processor is measured again, at most three
                 times; where that never helps, blocks are kept as they are, counted, and the
                 result is flagged ``contended``; so is one in which heat slowed the GPU, or others
                 computed on it (``gpu_watch``)
    blocks       until the intervals are narrow enough (``stopping``), or a bound is missed for
                 certain, which is flagged ``decided``, or max_s is over, which is flagged
                 ``target_not_met``; a jump in the middle is flagged ``level_shift``

``max_s`` counts from the end of the cold call and is kept to within one request, warm-up included.
Where an engine is too slow for ``min_blocks`` full blocks in that time, a block gets its share of
the time that is left, and as few as one request per worker: more blocks say more than fuller ones.
The warm-up ends early likewise, so slow engines are warmed by the calls that there is time for.

Real engines run under ``closed_loop``, which owns the clock, or, on a device that works apart from
the host, under ``device_loop``; where the host needs about as long to ask as the device to answer,
that is flagged ``enqueue_bound``. An engine that computes its blocks is
asked for them by the same steps on a clock of its own, which costs no real time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from search_spaces.space import MeasuringPlan
from trials.abilities import ComputesBlocks, QueuesRequests, StatesTransfers
from trials.backend import Engine, Tensors
from trials.measurement import Block, DeviceTiming, GpuUse, Queueing, Quiet, Speed
from trials.measuring import contention, gpu_watch
from trials.measuring.closed_loop import ClosedLoop, Quota
from trials.measuring.contention import Reading
from trials.measuring.device_loop import ENQUEUE_BOUND, DeviceLoop, is_enqueue_bound
from trials.measuring.statistics import summarize
from trials.measuring.steadiness import has_level_shift, truncate_warmup
from trials.measuring.stopping import Question, next_look, targets_met
from trials.measuring.surroundings import Surroundings

NO_STEADY_STATE = "no_steady_state"
LEVEL_SHIFT = "level_shift"
TARGET_NOT_MET = "target_not_met"
DECIDED = "decided"
CONTENDED = "contended"

_WARMUP_CALLS = 20  # of each worker
_WARMUP_SHARE = 0.2  # of max_s, at most, the cold call included
_SETTLING_SHARE = 0.5  # of max_s after which no more blocks are dropped
_MAX_DROPPED = 5
_REPEATS = 3  # of a contended block
_PATIENCE = 3  # blocks in a row that stayed contended; then the machine is busy, and stays so
CONTENDED_SHARE = 0.05  # of the blocks; fewer move no number that is not rare
_REPEAT_SHARE = 0.2  # of max_s, at most, spent on blocks that do not count for contention
_LEAST_BLOCK = 0.5  # of a block's length; what is left of max_s below that is not used


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """What driving an engine found out.

    Attributes:
        blocks: The blocks that count, in order of time.
        cold_call_s: The first call alone, seconds.
        warmup_s: From the end of the cold call to the begin of the first block that counts.
        flags: Words of caution: ``no_steady_state``, ``level_shift``, ``target_not_met``,
            ``decided``, ``contended``, ``power_capped``, ``enqueue_bound``.
        quiet: How quiet the machine was.
        queueing: Under an open loop alone.
        gpu: Where a GPU ran the requests and could be read.
        timing: Who drove a device and where the time went, under a closed loop of one.
    """

    blocks: tuple[Block, ...]
    cold_call_s: float
    warmup_s: float
    speed: Speed
    flags: tuple[str, ...]
    quiet: Quiet
    queueing: Queueing | None = None
    gpu: GpuUse | None = None
    timing: DeviceTiming | None = None


def drive(
    engine: Engine,
    batches: Sequence[Tensors],
    *,
    concurrency: int,
    batch_size: int,
    plan: MeasuringPlan,
    question: Question | None = None,
    progress: Callable[[int], None] | None = None,
    clocks: Callable[[], Reading] = contention.read,
) -> Driven:
    """Keep ``concurrency`` requests in flight and measure until the plan is content.

    Args:
        engine: A loaded engine that nobody else uses meanwhile.
        batches: Inputs that requests cycle over, at least one.
        concurrency: Worker threads, >= 1.
        batch_size: Samples in each batch.
        plan: How long and how well.
        question: What a search wants to know, which may be known early; None for the numbers.
        progress: Told the number of blocks after each one, between blocks.
        clocks: Read before and after each block, to see whether others were in the way.

    Raises:
        ValueError: No batch, or a concurrency below 1.
        TrialError: Whatever the engine raises, as it was; so does any other exception.
    """
    with (
        gpu_watch.watched(engine) as gpu,
        opened_loop(engine, batches, concurrency=concurrency, batch_size=batch_size) as loop,
    ):
        around = Surroundings(clocks=clocks, gpu=gpu)
        measuring = _Measuring(loop, plan, question=question, progress=progress, around=around)
        driven = measuring.run()
        if isinstance(engine, StatesTransfers) and engine.transfers is not None:
            # libraries spin while they wait for a device, so CPU time of a request is not told
            driven = replace(driven, quiet=replace(driven.quiet, cpu_s_per_request=None))
        if not isinstance(loop, DeviceLoop):
            return driven
        found = loop.timing(driven.blocks)
        flags = (*driven.flags, ENQUEUE_BOUND) if is_enqueue_bound(found) else driven.flags
        return replace(driven, timing=found, flags=flags)


class Loop(Protocol):
    """What measuring needs of a loop, whether its time is spent or computed."""

    @property
    def threads(self) -> tuple[int, ...]:
        """Native ids of the worker threads; none where time is computed."""
        ...

    def now_s(self) -> float:
        """Read the loop's clock, seconds."""
        ...

    def cold_call(self) -> float:
        """Send one request alone and return its seconds."""
        ...

    def block(self, quota: Quota) -> Block:
        """Keep the engine busy until the quota is reached."""
        ...


@contextmanager
def opened_loop(
    engine: Engine, batches: Sequence[Tensors], *, concurrency: int, batch_size: int
) -> Iterator[Loop]:
    """Start the workers over an engine, and end them whatever happens.

    Raises:
        ValueError: No batch, or a concurrency below 1.
        TrialError: Whatever the engine raises, as it was.
    """
    if isinstance(engine, ComputesBlocks):
        yield _ComputedLoop(engine)
        return
    if isinstance(engine, QueuesRequests):
        with DeviceLoop(engine, batches, contexts=concurrency, batch_size=batch_size) as on_device:
            yield on_device
        return
    with ClosedLoop(engine, batches, workers=concurrency, batch_size=batch_size) as loop:
        yield loop


class _ComputedLoop:
    """A loop over an engine that computes its blocks; its clock moves by what they took."""

    threads: tuple[int, ...] = ()

    def __init__(self, engine: ComputesBlocks) -> None:
        self._engine = engine
        self._now_s = 0.0

    def now_s(self) -> float:
        return self._now_s

    def cold_call(self) -> float:
        block = self._computed(window_s=0.0, requests=1)
        return float(block.latencies_s[0])

    def block(self, quota: Quota) -> Block:
        left_s = max(0.0, quota.cap_s - self._now_s)
        return self._computed(window_s=min(quota.window_s, left_s), requests=quota.requests)

    def _computed(self, *, window_s: float, requests: int) -> Block:
        block = self._engine.computed_block(
            start_s=self._now_s, window_s=window_s, requests=requests
        )
        assert block.window_s > 0, "a block of no length would never end the measurement"
        self._now_s += block.window_s
        return block


@dataclass(frozen=True, slots=True, kw_only=True)
class _Aside:
    """What is known of a block beside its requests: CPU time of this process, and contention."""

    cpu_s: float
    is_contended: bool


class _Measuring:
    """One measurement under way."""

    def __init__(
        self,
        loop: Loop,
        plan: MeasuringPlan,
        *,
        question: Question | None,
        progress: Callable[[int], None] | None,
        around: Surroundings,
    ) -> None:
        self._loop = loop
        self._around = around
        self._plan = plan
        self._question = question
        self._is_decided = False
        self._progress = progress
        self._blocks: list[Block] = []
        self._cap_s = 0.0
        self._rate_rps = 0.0
        self._contended: list[bool] = []  # of each block that is kept, likewise the next
        self._cpu_s: list[float] = []
        self._last = _Aside(cpu_s=0.0, is_contended=False)
        self._repeated = 0
        self._lost_s = 0.0  # spent on blocks that were measured again
        self._in_vain = 0  # blocks in a row that stayed contended

    def run(self) -> Driven:
        """Go through all the steps once."""
        loop, plan = self._loop, self._plan
        warmup_until_s = loop.now_s() + _WARMUP_SHARE * plan.max_s
        cold_call_s = loop.cold_call()
        ready_s = loop.now_s()
        self._cap_s = ready_s + plan.max_s
        self._rate_rps = 1 / max(cold_call_s, 1e-9)
        self._warm_up(warmup_until_s)
        is_steady = self._settle(ready_s + _SETTLING_SHARE * plan.max_s)
        is_met = self._measure()
        contended = sum(self._contended)
        use = gpu_watch.use_of(self._around.gpu, self._blocks)
        flags = {
            NO_STEADY_STATE: not is_steady,
            LEVEL_SHIFT: has_level_shift(self._blocks),
            TARGET_NOT_MET: not is_met and not self._is_decided,
            DECIDED: self._is_decided,
            CONTENDED: self._is_disturbed(),
            gpu_watch.POWER_CAPPED: gpu_watch.is_often_capped(self._blocks),
        }
        return Driven(
            blocks=tuple(self._blocks),
            cold_call_s=cold_call_s,
            warmup_s=max(0.0, self._blocks[0].start_s - ready_s),
            speed=summarize(self._blocks, target_met=is_met),
            flags=tuple(flag for flag, is_raised in flags.items() if is_raised),
            quiet=Quiet(
                contended_blocks=contended,
                repeated_blocks=self._repeated,
                cpu_s_per_request=self._cpu_s_per_request(),
            ),
            gpu=use,
        )

    def _warm_up(self, until_s: float) -> None:
        if self._loop.now_s() >= until_s:
            return  # a cold call that long has warmed what there is time to warm
        quota = Quota(
            window_s=self._plan.warmup_s, requests=_WARMUP_CALLS, each=_WARMUP_CALLS, cap_s=until_s
        )
        self._note_rate(self._loop.block(quota))

    def _settle(self, until_s: float) -> bool:
        """Drop blocks until one shows no transient; tell whether it came to that."""
        for _ in range(_MAX_DROPPED):
            block = self._next_block()
            transient = truncate_warmup(block.latencies_s)
            if transient == 0:
                self._keep(block)
                return True
            if self._loop.now_s() >= until_s:
                self._keep(block)
                return False
            if 2 * transient < block.latencies_s.size:
                return True  # it ended inside this block, which is dropped all the same
        return False

    def _measure(self) -> bool:
        """Add blocks until nothing more is wanted; tell whether the targets are met."""
        look, looks = self._plan.min_blocks, 0
        while not self._blocks or self._has_time():
            if len(self._blocks) >= look:
                looks += 1
                if targets_met(self._blocks, self._plan) and self._is_energy_known():
                    return True
                if self._is_answered(looks):
                    self._is_decided = True
                    return False
                look = next_look(len(self._blocks))
            self._keep(self._next_block())
        return targets_met(self._blocks, self._plan)

    def _is_energy_known(self) -> bool:
        """Tell whether energy is known well enough, or nobody asks, or it is not to be had."""
        gpu = self._around.gpu
        if gpu is None or self._question is None or not self._question.is_about_energy:
            return True
        return gpu_watch.knows_energy(gpu, self._blocks)

    def _is_answered(self, looks: int) -> bool:
        if self._question is None:
            return False
        return self._question.answered(self._blocks, looks, disturbed=self._is_disturbed())

    def _is_disturbed(self) -> bool:
        return sum(self._contended) > CONTENDED_SHARE * len(self._blocks)

    def _has_time(self) -> bool:
        left_s = self._cap_s - self._loop.now_s()
        return left_s > 0 and left_s >= _LEAST_BLOCK * self._share(left_s)

    def _share(self, left_s: float) -> float:
        """Return the length of the next block, so that ``min_blocks`` fit into what is left."""
        wanted = max(1, self._plan.min_blocks - len(self._blocks))
        return min(self._plan.block_s, left_s / wanted)

    def _next_block(self) -> Block:
        """Measure a block, again where others were in the way and there is hope and time."""
        began_s = self._loop.now_s()
        block = self._one_block()
        repeats = 0
        while self._last.is_contended and repeats < _REPEATS and self._may_repeat():
            self._lost_s += self._loop.now_s() - began_s
            began_s = self._loop.now_s()
            block = self._one_block()
            repeats += 1
        self._repeated += repeats
        self._in_vain = self._in_vain + 1 if self._last.is_contended else 0
        return block

    def _may_repeat(self) -> bool:
        """Tell whether measuring again may help, and leaves enough time for what counts."""
        if self._in_vain >= _PATIENCE or self._lost_s >= _REPEAT_SHARE * self._plan.max_s:
            return False
        left_s = self._cap_s - self._loop.now_s()
        wanted = max(1, self._plan.min_blocks - len(self._blocks))
        return left_s >= wanted * self._plan.block_s

    def _one_block(self) -> Block:
        left_s = max(0.0, self._cap_s - self._loop.now_s())
        wanted = max(1, self._plan.min_blocks - len(self._blocks))
        affordable = int(self._rate_rps * left_s / wanted)
        quota = Quota(
            window_s=self._share(left_s),
            requests=max(1, min(self._plan.block_requests, affordable)),
            cap_s=self._cap_s,
        )
        drivers = self._loop.threads
        block, span = self._around.around(lambda: self._loop.block(quota))
        if self._loop.threads != drivers:  # which took a block and binding: both are in the span
            self._note_rate(block)
            return self._one_block()
        samples = block.latencies_s.size * block.batch_size
        on_gpu = span.on_gpu(load_s=block.window_s, samples=samples)
        lost_cpu = bool(self._loop.threads) and contention.was_contended(span.before, span.after)
        lost_gpu = on_gpu is not None and gpu_watch.was_disturbed(on_gpu)
        self._last = _Aside(cpu_s=span.own_s, is_contended=lost_cpu or lost_gpu)
        self._note_rate(block)
        return block if on_gpu is None else replace(block, gpu=on_gpu)

    def _keep(self, block: Block) -> None:
        self._blocks.append(block)
        self._contended.append(self._last.is_contended)
        self._cpu_s.append(self._last.cpu_s)
        if self._progress is not None:
            self._progress(len(self._blocks))

    def _cpu_s_per_request(self) -> float | None:
        """Return the CPU time for each request that counts; None where none is spent."""
        if not self._loop.threads or min(self._cpu_s) <= 0:
            return None
        requests = np.array([block.latencies_s.size for block in self._blocks])
        return float(np.median(np.array(self._cpu_s) / requests))

    def _note_rate(self, block: Block) -> None:
        self._rate_rps = block.latencies_s.size / block.window_s
