"""Measure what the closed loop of a device costs a request, beside a bare loop.

Both drive the same requests on the same device: a CUDA graph that fills memory, between two
events, with the next one always in line. *Bare* waits for the oldest and sends the next, and does
nothing else; *ours* is ``device_loop``, which also takes stamps, asks events for their time and
keeps count. Blocks of both alternate, forward and backward in turn, and differences are taken
within a round.

On the computed device requests take no time, and what is compared is the processor's time of the
whole process, which other work on the machine does not lengthen: that of the simulation, for which
both pay, and that of the loop. With a GPU (``--gpu``) a request is as many fills as take 0.2 ms,
time is that of the wall, and the loops are to agree to 2 %.

    python scripts/bench_device.py            # the computed device
    python scripts/bench_device.py --gpu      # the GPU of this machine
    python scripts/bench_device.py --smoke    # a second, to see that it runs
"""

import argparse
import gc
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from time import perf_counter_ns, process_time_ns
from typing import TypeAlias

import numpy as np

from trials.backend import Tensors
from trials.devices.catalog import this_device
from trials.devices.device import Device, Event
from trials.devices.fake import FakeDevice
from trials.errors import UnsupportedError
from trials.measuring.closed_loop import Quota
from trials.measuring.device_loop import DeviceLoop
from trials.measuring.ranks import signed_rank_centre

_NEVER_S = 1e6  # blocks end by their requests
_MEMORY_BYTES = 1 << 20
_DEPTH = 2
_CONTEXTS = (1, 2, 4)
_LIMIT = 0.02  # of a GPU's throughput
_REQUEST_S = 2e-4  # that fills are to last on a GPU

Clock: TypeAlias = Callable[[], int]
"""Reads nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long to measure: rounds of one block of each loop, and the requests of a block."""

    rounds: int
    requests: int


class Filling:
    """An engine whose requests fill memory; see ``QueuesRequests``."""

    transfers = "exclude"
    uses_graphs = True

    def __init__(self, device: Device, *, fills: int) -> None:
        self._device = device
        self._fills = fills

    @contextmanager
    def queue(self, batches: Sequence[Tensors]) -> Iterator["Fills"]:
        """Bind a stream, memory and a graph; batches make no difference."""
        del batches
        with self._device.current(), closing(Fills(self._device, self._fills)) as fills:
            yield fills


class Fills:
    """Requests of one context; see ``RequestQueue``."""

    depth = _DEPTH

    def __init__(self, device: Device, fills: int) -> None:
        self._parts = ExitStack()
        self._stream = self._parts.enter_context(closing(device.stream()))
        memory = self._parts.enter_context(closing(device.memory(_MEMORY_BYTES)))
        events = [self._parts.enter_context(closing(device.event())) for _ in range(2 * _DEPTH)]
        self._free = deque(zip(events[::2], events[1::2], strict=True))
        self._flight: deque[tuple[Event, Event]] = deque()

        def fill() -> None:
            for _ in range(fills):
                self._stream.fill(memory, 0)

        fill()  # whatever is lazy is made now
        self._stream.synchronize()
        self._graph = self._parts.enter_context(closing(self._stream.capture(fill)))

    def send(self, at: int) -> None:
        """Launch the graph between two events."""
        del at
        begin, end = pair = self._free.popleft()
        self._stream.record(begin)
        self._stream.launch(self._graph)
        self._stream.record(end)
        self._flight.append(pair)

    def is_done(self) -> bool:
        """Ask the oldest request's last event."""
        return self._flight[0][1].is_done()

    def wait(self) -> None:
        """Wait for it."""
        self._flight[0][1].wait()

    def finish(self) -> float:
        """Take it out of flight and return its GPU seconds."""
        begin, end = self.drop()
        return end.elapsed_s(begin)

    def drop(self) -> tuple[Event, Event]:
        """Take it out of flight and ask for nothing."""
        pair = self._flight.popleft()
        self._free.append(pair)
        return pair

    def close(self) -> None:
        """Wait and give everything back."""
        with self._parts:
            self._stream.synchronize()


def bare_us(queues: Sequence[Fills], requests: int, clock: Clock) -> float:
    """Send requests round robin, with nothing around them; return microseconds a request."""
    line = [*queues] * _DEPTH
    gc.disable()
    try:
        start = clock()
        for queue in line:
            queue.send(0)
        for _ in range(requests // len(queues)):
            for queue in queues:
                queue.wait()
                queue.drop()
                queue.send(0)
        took_ns = clock() - start
        for queue in line:
            queue.wait()
            queue.drop()
    finally:
        gc.enable()
    return took_ns / requests / 1e3


def ours_us(loop: DeviceLoop, requests: int, clock: Clock) -> float:
    """Run a block of our loop; return microseconds a request, of the block's window on the wall.

    The processor's time is that of all that a block takes, its checks included.
    """
    start = clock()
    block = loop.block(Quota(window_s=0.0, requests=requests, cap_s=_NEVER_S))
    took_us = (clock() - start) / 1e3
    took_us = took_us if clock is process_time_ns else block.window_s * 1e6
    return took_us / block.latencies_s.size


def compare(
    device: Device, size: Size, clock: Clock, *, contexts: int, fills: int
) -> tuple[str, bool]:
    """Alternate blocks of both loops; return a row, and whether the limit was kept for certain."""
    engine = Filling(device, fills=fills)
    batches: list[Tensors] = [{}]
    with ExitStack() as held:
        loop = held.enter_context(DeviceLoop(engine, batches, contexts=contexts, batch_size=1))
        ours_us(loop, size.requests, clock)  # which also decides who drives
        queues = [held.enter_context(engine.queue(batches)) for _ in range(contexts)]
        table = np.empty((size.rounds, 2))
        for at in range(size.rounds):
            for which in (0, 1) if at % 2 == 0 else (1, 0):
                if which == 0:
                    table[at, which] = bare_us(queues, size.requests, clock)
                else:
                    table[at, which] = ours_us(loop, size.requests, clock)
        threads = len(loop.threads)
    bare, ours = np.median(table, axis=0)
    extra = signed_rank_centre(table[:, 1] - table[:, 0], confidence=0.95)
    ratio = signed_rank_centre(np.log(table[:, 1] / table[:, 0]), confidence=0.95)
    row = (
        f"{contexts:>8}{threads:>8}{bare:>10.2f}{ours:>10.2f}{extra.value:>8.2f} us "
        f"[{extra.low:.2f}, {extra.high:.2f}]{np.expm1(ratio.value):>9.2%}"
    )
    return row, ratio.high is not None and np.expm1(ratio.high) <= _LIMIT


def fills_for(device: Device, seconds: float) -> int:
    """Find how many fills take about so long on this device."""
    fills = 1
    while True:
        with Filling(device, fills=fills).queue([]) as queue:
            queue.send(0)
            queue.wait()
            queue.finish()
            queue.send(0)
            queue.wait()
            took_s = queue.finish()
        if took_s >= seconds / 2:
            return max(1, round(fills * seconds / took_s))
        fills *= 2


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="on the GPU of this machine")
    parser.add_argument("--smoke", action="store_true", help="a few short blocks")
    wanted = parser.parse_args(arguments)
    size = Size(rounds=6, requests=200) if wanted.smoke else Size(rounds=40, requests=4000)
    try:
        device: Device = this_device() if wanted.gpu else FakeDevice()
    except UnsupportedError as error:
        print(f"no NVIDIA GPU: {error}", file=sys.stderr)
        return 1
    fills = fills_for(device, _REQUEST_S) if wanted.gpu else 1
    clock = perf_counter_ns if wanted.gpu else process_time_ns
    load = " ".join(f"{one:.2f}" for one in os.getloadavg())
    print(f"{device.facts.name}, {os.cpu_count()} cores, load average {load}")
    print(f"{size.rounds} rounds of blocks of {size.requests} requests of {fills} fills\n")
    print(f"contexts threads   bare us   ours us{'ours - bare':>26}  of bare")
    is_kept = True
    for contexts in _CONTEXTS:
        row, within = compare(device, size, clock, contexts=contexts, fills=fills)
        print(row, flush=True)
        is_kept &= within
    if wanted.gpu:
        print(f"limit {_LIMIT:.0%} of throughput: {'kept' if is_kept else 'not kept for certain'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
