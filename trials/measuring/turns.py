"""Two engines under load in turns: ABBA or BAAB, drawn for each four blocks.

Both are loaded, warm and bound before the first block, and only one of them is driven at a time;
the workers of the other one sleep at a barrier. In a four (ABBA) each engine is once before and
once after its neighbour, so that a steady drift cancels within the four; which engine begins is
drawn, so that nothing that happens every four blocks can favour one. A block begins when all
threads of the other engine rest (``resting``), and is led in by some requests that do not count:
the caches still hold what the other engine left there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from trials.measurement import Block
from trials.measuring import contention, gpu_watch
from trials.measuring.closed_loop import Quota
from trials.measuring.load import Loop
from trials.measuring.pairing import BlockPair
from trials.measuring.resting import wait_until_resting
from trials.measuring.surroundings import Span, Surroundings

_WARMUP_CALLS = 20  # of each worker
_WARMUP_S = 0.2
_LEAD_IN_CALLS = 3  # of each worker, after the other engine had its turn
_LEAD_IN_SHARE = 0.05  # of a block's length
_BLOCK_CALLS = 20  # at least, of all workers: the median of fewer jumps
_LONGEST_REST_S = 0.5  # ONNX Runtime's threads need 0.04 s of CPU time, on a busy machine 0.1 s
_LONGEST = 20.0  # times a block's length, after which it ends with what it has


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """What driving two engines in turns found out.

    Attributes:
        pairs: In order of time.
        contended: Blocks during which others took the processor or the GPU, or heat slowed that.
            They are kept: a neighbour meets both engines, and what it does to one block alone
            widens the interval.
        blocks: Of both engines together.
        restless: Blocks that began although threads of the other engine would not rest.
    """

    pairs: tuple[BlockPair, ...]
    contended: int
    blocks: int
    restless: int


def drive_in_turns(
    old: Loop,
    new: Loop,
    *,
    fours: int,
    block_s: float,
    random: np.random.Generator,
    around: Surroundings | None = None,
) -> Turns:
    """Warm both engines up and measure ``fours`` times four blocks.

    Args:
        old: Over a loaded engine that nobody else uses meanwhile; likewise ``new``.
        new: The other one.
        fours: >= 1; each gives two pairs.
        block_s: Length of a block, seconds, > 0.
        random: Draws who begins.
        around: Read before and after each block; None for the clocks of the machine alone.

    Raises:
        TrialError: Whatever an engine raises, as it was.
    """
    reading = around or Surroundings()
    for loop in (old, new):
        loop.cold_call()
        _led_in(loop, calls=_WARMUP_CALLS, window_s=_WARMUP_S)
        _block(loop, block_s)  # not counted: what settles, settles here
    pairs: list[BlockPair] = []
    contended = restless = 0
    for _ in range(fours):
        first, second = (old, new) if random.random() < 0.5 else (new, old)  # noqa: PLR2004 (a coin)
        order = (first, second, second, first)
        found = []
        for loop in order:
            restless += bool(loop.threads) and not wait_until_resting(_LONGEST_REST_S)
            block, span = reading.around(partial(_block, loop, block_s))
            found.append(block)
            contended += _is_contended(loop, block, span)
        pairs += _pairs(order, found, new)
    return Turns(pairs=tuple(pairs), contended=contended, blocks=4 * fours, restless=restless)


def _is_contended(loop: Loop, block: Block, span: Span) -> bool:
    on_gpu = span.on_gpu(load_s=block.window_s, samples=block.latencies_s.size)
    if on_gpu is not None and gpu_watch.was_disturbed(on_gpu):
        return True
    return bool(loop.threads) and contention.was_contended(span.before, span.after)


def _pairs(order: Sequence[Loop], blocks: Sequence[Block], new: Loop) -> list[BlockPair]:
    """Pair the first two blocks of a four, and the last two."""
    return [
        BlockPair(new=blocks[at], old=blocks[at + 1])
        if order[at] is new
        else BlockPair(new=blocks[at + 1], old=blocks[at])
        for at in (0, 2)
    ]


def _block(loop: Loop, block_s: float) -> Block:
    _led_in(loop, calls=_LEAD_IN_CALLS, window_s=_LEAD_IN_SHARE * block_s)
    cap_s = loop.now_s() + _LONGEST * block_s
    return loop.block(Quota(window_s=block_s, requests=_BLOCK_CALLS, cap_s=cap_s))


def _led_in(loop: Loop, *, calls: int, window_s: float) -> None:
    cap_s = loop.now_s() + max(window_s, _LONGEST * _WARMUP_S)
    loop.block(Quota(window_s=window_s, requests=calls, each=calls, cap_s=cap_s))
