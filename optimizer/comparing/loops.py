"""Which loops made the load of two sides, where that is not the same: latencies then differ by it.

Blocks tell: those of an open loop have stamps, those of a device tell where its time went.
"""

from collections.abc import Sequence

from trials.measurement import Block


def said_of_loops(a: Sequence[Block], b: Sequence[Block]) -> tuple[str, ...]:
    """Say that two sides were under different loops; nothing where it was the same.

    Args:
        a: Of the one side, at least one.
        b: Of the other.
    """
    first, second = _loop_of(a[0]), _loop_of(b[0])
    if first == second:
        return ()
    return (f"different loops: A {first}, B {second}; short requests differ by that alone",)


def _loop_of(block: Block) -> str:
    if block.stamps is not None:
        return "gets requests as they come (latency: from the due time)"
    if block.device is not None:
        return "has the next request in line on its device (latency: without enqueuing it)"
    return "sends a request when the one before is answered (latency: the whole call)"
