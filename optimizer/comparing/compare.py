"""Compare two deployments: in turns on this machine, or from what was measured of them before.

Live, sessions of 20 blocks (ten of each engine, in turns) follow each other, each in a process of
its own with both engines loaded afresh. After 2, 4, 8 and 16 sessions the blocks are looked at,
and the comparison ends when every metric is decided or the time is over. Whoever looks four times
errs four times as often, so each look asks for a confidence of 1 - 5 % / 4 (Bonferroni): the
intervals that are shown hold 95 % over all looks together.

Pairs of one session share how both engines were loaded, so a difference must also hold without any
single session; else it is undecided.

From stored blocks there are no pairs, and what changed on the machine between the two measurements
is taken for a difference of the engines: that is weaker, and it is said.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np

from optimizer.comparing.loops import said_of_loops
from optimizer.comparing.scores import ScoreCompared, compare_scores
from optimizer.comparing.side import Side, Stored
from optimizer.errors import UsageError
from search_spaces.space import MeasuringPlan
from trials.backend import Tensors, TensorSpec
from trials.duel import Duel, describe_inputs, fight
from trials.engine_files import Driving
from trials.isolation.child import Limits
from trials.isolation.errand import run_errand
from trials.measuring.comparison import Compared, Verdict, compare_speeds, with_doubts
from trials.measuring.pairing import BlockPair, compare_pairs
from trials.measuring.statistics import CONFIDENCE
from trials.measuring.turns import Turns

BLOCK_S = 0.1
LOOKS = (2, 4, 8, 16)
"""Sessions after which the blocks are looked at."""

_DIFFERENT = (Verdict.BETTER, Verdict.WORSE)
_FOURS = 5  # of a session: ten blocks of each engine
_SAMPLES = 64  # of made-up inputs, for engines that came with none
_LIMITS = Limits(deadline_s=600.0, memory_bytes=None)  # of one session


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What comparing B with A came to.

    Attributes:
        stories: What A and B are.
        live: They were measured in turns just now, else stored blocks were compared.
        pairs: Of neighbouring blocks; 0 from stored blocks.
        sessions: How often both were loaded; likewise.
        contended: Share of blocks during which others took the processor, in [0, 1].
        margin: Share of a speed that does not matter.
        speeds: B / A, metric by metric.
        scores: B - A, score by score.
        cautions: What this comparison cannot tell.
    """

    stories: tuple[str, str]
    live: bool
    pairs: int
    sessions: int
    contended: float
    margin: float
    speeds: tuple[Compared, ...]
    scores: tuple[ScoreCompared, ...]
    cautions: tuple[str, ...]

    @property
    def is_worse(self) -> bool:
        """Tell whether B is worse in anything."""
        return any(
            Verdict.WORSE in (one.verdict for one in found) for found in (self.speeds, self.scores)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOrder:
    """What a user asks of a comparison.

    Attributes:
        metrics: Names of speeds.
        margin: Share of a speed that does not matter, > 0.
        time_s: Most time spent measuring, seconds, > 0; one session at least is measured.
        seed: Of every order that is drawn.
    """

    metrics: tuple[str, ...]
    margin: float
    time_s: float
    seed: int = 0


def compare_live(
    a: Side, b: Side, order: CompareOrder, *, on_step: Callable[[str], None]
) -> Comparison:
    """Measure two engines in turns until every metric is decided or the time is over.

    Raises:
        UsageError: The two do not take the same inputs.
        TrialError: An engine cannot be loaded or run.
    """
    driving = _drivings(a, b)
    turns: list[Turns] = []
    ends_s = monotonic() + order.time_s
    speeds: tuple[Compared, ...] = ()
    while len(turns) < LOOKS[-1] and (not turns or monotonic() < ends_s):
        on_step(_progress(len(turns) + 1, speeds))
        duel = Duel(
            old=driving[0],
            new=driving[1],
            fours=_FOURS,
            block_s=BLOCK_S,
            seed=order.seed + len(turns),
        )
        turns.append(run_errand(fight, duel, _LIMITS))
        if len(turns) in LOOKS:
            speeds = looked_at(turns, order)
            if all(one.verdict is not Verdict.UNDECIDED for one in speeds):
                break
    if len(turns) not in LOOKS:
        speeds = looked_at(turns, order)
    scores, cautions = compare_scores(a, b, on_step=on_step)
    pairs = _pairs(turns)
    cautions = (
        *said_of_loops([pair.old for pair in pairs], [pair.new for pair in pairs]),
        *cautions,
    )
    if restless := sum(one.restless for one in turns):
        never = (
            f"threads of one engine never rested: {restless} blocks of the other ran beside them"
        )
        cautions = (never, *cautions)
    blocks = sum(one.blocks for one in turns)
    return Comparison(
        stories=(a.story, b.story),
        live=True,
        pairs=len(pairs),
        sessions=len(turns),
        contended=sum(one.contended for one in turns) / blocks,
        margin=order.margin,
        speeds=speeds,
        scores=scores,
        cautions=cautions,
    )


def compare_stored(a: Stored, b: Stored, order: CompareOrder, *, reason: str) -> Comparison:
    """Compare what was measured of two deployments back then.

    Args:
        a: What is held against.
        b: What is compared with it.
        order: The metrics and the margin.
        reason: Why they are not measured now.
    """
    speeds = with_doubts(
        compare_speeds(b.blocks, a.blocks, order.metrics, margin=order.margin),
        new_busy=b.contended,
        old_busy=a.contended,
    )
    busy = [one.name for one in (a, b) if one.contended]
    return Comparison(
        stories=(a.story, b.story),
        live=False,
        pairs=0,
        sessions=0,
        contended=0.0,
        margin=order.margin,
        speeds=speeds,
        scores=(),
        cautions=(
            f"from stored blocks ({reason})",
            "weaker: what changed on the machine between the two measurements counts as well",
            *said_of_loops(a.blocks, b.blocks),
            *(f"other work took the processor while {name} was measured" for name in busy),
            "scores are compared live alone",
        ),
    )


def looked_at(turns: Sequence[Turns], order: CompareOrder) -> tuple[Compared, ...]:
    """Judge the sessions so far; what rests on a single session is undecided.

    Args:
        turns: Of each session, at least one.
        order: The metrics and the margin.
    """
    found = _judged(turns, order)
    if len(turns) == 1:
        return found
    without = [
        {one.metric: one.verdict for one in _judged([*turns[:at], *turns[at + 1 :]], order)}
        for at in range(len(turns))
    ]
    return tuple(
        replace(one, verdict=Verdict.UNDECIDED)
        if one.verdict in _DIFFERENT
        and any(each[one.metric] is not one.verdict for each in without)
        else one
        for one in found
    )


def _judged(turns: Sequence[Turns], order: CompareOrder) -> tuple[Compared, ...]:
    confidence = 1 - (1 - CONFIDENCE) / len(LOOKS)
    return compare_pairs(_pairs(turns), order.metrics, margin=order.margin, confidence=confidence)


def _pairs(turns: Sequence[Turns]) -> list[BlockPair]:
    return [pair for one in turns for pair in one.pairs]


def _progress(session: int, speeds: Sequence[Compared]) -> str:
    still = [one.metric for one in speeds if one.verdict is Verdict.UNDECIDED]
    so_far = f"; undecided so far: {', '.join(still)}" if still else ""
    return f"measuring in turns, session {session} of at most {LOOKS[-1]}{so_far}"


def _drivings(a: Side, b: Side) -> tuple[Driving, Driving]:
    plan = MeasuringPlan()
    return (
        Driving(engine=a.file, inputs=_inputs(a, b), plan=plan),
        Driving(engine=b.file, inputs=_inputs(b, a), plan=plan),
    )


def _inputs(side: Side, other: Side) -> Tensors:
    """Return a side's own inputs, else the other's where they suit, else made-up ones."""
    if side.inputs is not None:
        return side.inputs
    specs = run_errand(describe_inputs, side.file, _LIMITS)
    given = other.inputs
    if given is not None and all(
        spec.name in given
        and given[spec.name].dtype.name == spec.dtype
        and given[spec.name].ndim == len(spec.shape)
        for spec in specs
    ):
        return {spec.name: given[spec.name] for spec in specs}
    return _made_up(specs, side.name)


def _made_up(specs: Sequence[TensorSpec], name: str) -> Tensors:
    """Draw inputs, normal or small whole numbers; speed seldom depends on what they are."""
    random = np.random.default_rng(0)
    found = {}
    for spec in specs:
        shape = spec.shape[1:]
        if any(size is None for size in shape):
            raise UsageError(
                f"{name}: input {spec.name!r} has free dimensions beyond the batch, {spec.shape}",
                hint="compare it with a trial or an export, whose inputs it then gets",
            )
        sizes = (_SAMPLES, *(size for size in shape if size is not None))
        drawn = random.standard_normal(sizes)
        found[spec.name] = (np.abs(drawn) if spec.dtype.startswith("u") else drawn).astype(
            spec.dtype
        )
    return found
