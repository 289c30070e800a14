"""What users are promised: bounds on latency, from the command line or the study's space."""

from collections.abc import Sequence
from itertools import pairwise

from optimizer.errors import UsageError
from search_spaces.bounds import constraints_from_texts
from search_spaces.errors import SpaceError
from search_spaces.space import Constraint, SearchSpace

_LEVELS = (
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p99_ms",
    "latency_p999_ms",
)  # each at least as long as the one before


def slo_from_texts(texts: Sequence[str], space: SearchSpace) -> tuple[Constraint, ...]:
    """Read bounds such as ``latency_p99_ms <= 10``; without any, take the space's own.

    Raises:
        UsageError: No bound, one that cannot be meant, not of a latency, or that contradicts
            another.
    """
    bounds = _parsed(texts, space) if texts else space.constraints
    latencies = tuple(one for one in bounds if one.metric.name.startswith("latency_"))
    if texts and len(latencies) < len(bounds):
        odd = next(one for one in bounds if one not in latencies)
        raise UsageError(
            f"--slo: {odd.metric.name} does not depend on how fast requests come",
            hint="bound a latency, as in --slo 'latency_p99_ms <= 10'",
        )
    if not latencies:
        raise UsageError(
            "nothing says how late is too late: the study's space bounds no latency",
            hint="say it, as in --slo 'latency_p99_ms <= 10'",
        )
    _refuse_idle(latencies)
    return latencies


def _parsed(texts: Sequence[str], space: SearchSpace) -> tuple[Constraint, ...]:
    try:
        return constraints_from_texts(texts, kind=space.task.kind)
    except SpaceError as error:
        raise UsageError(f"--slo: {error.problem}") from error


def _refuse_idle(bounds: Sequence[Constraint]) -> None:
    """Refuse a bound that another one already implies: one of the two is not what was meant."""
    by_level = [one for name in _LEVELS for one in bounds if one.metric.name == name]
    for lower, higher in pairwise(by_level):
        if lower.bound > higher.bound:
            raise UsageError(
                f"--slo: {lower} contradicts {higher}, which is the stricter one of a longer "
                "latency, so that the first can never decide",
                hint="were the two numbers swapped?",
            )
