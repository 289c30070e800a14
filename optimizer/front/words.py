"""Numbers, intervals, deployments and whole fronts in words."""

from collections.abc import Iterator, Sequence

from optimizer.front.certainty import Verdict
from optimizer.front.drifting import Watch, watches_of
from optimizer.front.front import Candidate, Front
from search_spaces.deployment import Deployment, plain_rate
from search_spaces.metrics import METRICS
from trials.measurement import DeviceTiming, Estimate
from trials.measuring.load import CONTENDED
from trials.outcome import Completed, Failed, Infeasible

_SIGNIFICANT = 3
_THOUSAND = 999.5  # rounds to 1,000
_TIES_SHOWN = 2
_TRIALS_SHOWN = 6
_SURE = 0.995  # rounds to 100 %
_SHORT_S = 50e-6  # calling from Python was 7 % of a request of 40 us, 2 % of one of 200 us


def text_of(estimate: Estimate, *, lowest: str = "0") -> str:
    """Write a value with its interval, as ``1.23 [1.20, 1.27]``; ``∞`` where it is unbounded.

    Args:
        estimate: What was measured.
        lowest: What stands where the data give no lower limit: below 0 goes no latency, rate,
            score or ratio, but a difference does (:func:`text_of_difference`).
    """
    low = lowest if estimate.low is None else number(estimate.low)
    high = "∞" if estimate.high is None else number(estimate.high)
    if estimate.low == estimate.value == estimate.high:
        return number(estimate.value)
    return f"{number(estimate.value)} [{low}, {high}]"


def text_of_difference(estimate: Estimate) -> str:
    """Write a difference with its interval, of which either end may be unbounded."""
    return text_of(estimate, lowest="−∞")


def number(value: float) -> str:
    """Write a number with three significant digits, large ones whole and in thousands."""
    if abs(value) >= _THOUSAND:
        return f"{value:,.0f}"
    return f"{value:.{_SIGNIFICANT}g}"


def short(deployment: Deployment) -> str:
    """Write a deployment in few characters, as ``cnn int8 b8 c2 threads=1``.

    An open load stands before the options, as ``200/s`` or ``200/s 500us``, the second being how
    long a request may wait for others.
    """
    parts = [
        deployment.variant,
        deployment.precision.value,
        f"b{deployment.batch_size}",
        f"c{deployment.concurrency}",
    ]
    if deployment.load is not None:
        parts.append(f"{plain_rate(deployment.load.rate_rps)}/s")
        if deployment.load.max_queue_delay_us:
            parts.append(f"{deployment.load.max_queue_delay_us}us")
    parts += [f"{name}={value}" for name, value in deployment.options]
    return " ".join(parts)


def threads_of(timing: DeviceTiming) -> str:
    """Say how many threads drove a device, as ``1 thread``."""
    return f"{timing.threads} thread{'s' if timing.threads > 1 else ''}"


def label(metric: str) -> str:
    """Return what people call a metric, with its unit."""
    return METRICS[metric].label if metric in METRICS else metric


def standing_of(candidate: Candidate) -> str:
    """Write how surely a candidate is on the front, as ``25 % ≈41``.

    The probability where it is known; behind ``≈`` the members that it cannot be told apart from;
    ``?`` where it may miss a bound.
    """
    parts = [] if candidate.probability is None else [percent_of(candidate.probability)]
    shown = candidate.tied_with[:_TIES_SHOWN]
    if shown:
        more = ",…" if len(candidate.tied_with) > _TIES_SHOWN else ""
        parts.append(f"≈{','.join(map(str, shown))}{more}")
    if candidate.bounds is Verdict.UNDECIDED:
        parts.append("?")
    return " ".join(parts)


def summary_of_front(front: Front) -> Iterator[str]:
    """Yield the lines below the table: counts, hypervolume, and why deployments are missing."""
    counts = {
        "on the front": len(front.members),
        "tied with it": len(front.ties),
        "dominated": len(front.dominated),
        "missing a bound": len(front.missed),
        "infeasible": len(front.infeasible),
        "failed": len(front.failed),
    }
    yield ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no trials"
    if front.candidates:
        yield from _legend(front)
        yield f"hypervolume {front.hypervolume:.3f} of the box around the measured deployments"
        yield from _cautions(front)
    reasons: dict[str, int] = {}
    for record in (*front.infeasible, *front.failed):
        assert isinstance(record.outcome, Infeasible | Failed)
        reason = f"{record.outcome.state} ({record.outcome.kind}): {record.outcome.reason}"
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        yield f"{count} × {reason}"


def _cautions(front: Front) -> Iterator[str]:
    outcomes = [one.record.outcome for one in front.candidates]
    busy = sum(isinstance(one, Completed) and CONTENDED in one.flags for one in outcomes)
    if busy:
        yield (
            f"{busy} of these {len(outcomes)} were measured while other work took the processor, "
            "or their GPU was hot or shared: "
            "their speeds may be too low by more than the intervals say; `trifront certify` "
            "measures them again"
        )
    short_ones = sum(isinstance(one, Completed) and _is_short(one) for one in outcomes)
    if short_ones:
        yield (
            f"{short_ones} of these {len(outcomes)} answer in less than 50 us, and the way from "
            "Python to them is part of that: with ONNX Runtime, 1.5 to 3 us of it; two at a time, "
            "a loop in C got a seventh (at 40 us) to two thirds (at 8 us) more through"
        )
    for watch in watches_of(front.measured):
        if watch.doubtful:
            yield _drifted(watch, front)
        if watch.is_blind:
            name = short(watch.sentinel)
            yield f"the machine may have drifted: the sentinel, {name}, is too slow to tell"


def _is_short(outcome: Completed) -> bool:
    """Tell whether calling it from Python is more than a twentieth of a request.

    Of requests on this CPU in a closed loop; where time is computed no CPU time is spent.
    """
    quiet = outcome.quiet
    is_spent = quiet is not None and quiet.cpu_s_per_request is not None
    is_here = outcome.on_device is None
    return is_here and is_spent and outcome.speed.latency_p50_s.value < _SHORT_S


def _drifted(watch: Watch, front: Front) -> str:
    took = f"{text_of(watch.fastest)} to {text_of(watch.slowest)}"
    found = (
        f"{len(watch.doubtful)} of {watch.trials} trials were measured while the machine was not "
        f"as usual ({_numbered(watch.doubtful)}): the same deployment, {short(watch.sentinel)}, "
        f"took {took} times as long as usual"
    )
    if front.certified is not None:
        return found
    return (
        f"{found}; `trifront certify` measures those of them again that may be on the front, and "
        "`trifront search --repeat` tries the others again"
    )


def _numbered(trials: Sequence[int]) -> str:
    shown = ", ".join(map(str, trials[:_TRIALS_SHOWN]))
    return f"trials {shown}{', …' if len(trials) > _TRIALS_SHOWN else ''}"


def why_empty(front: Front, *, trials: int) -> str:
    """Say why nothing is on a front, and what to do.

    Args:
        front: An empty one.
        trials: How many have ended, those that were not asked about too.
    """
    if not trials:
        return "no trial has ended yet: search on, or name another study with --study"
    if not (front.missed or front.infeasible or front.failed):
        return "no trial meets the conditions on axes: loosen a --where, or search on"
    if front.missed:
        return (
            "all that was measured misses a bound: loosen a --where or a constraint, or search on"
        )
    return "nothing could be measured, for the reasons above"


def _legend(front: Front) -> Iterator[str]:
    yield "b is the batch size, c the concurrency; 95 % intervals in brackets; * is the knee"
    if any(one.probability is not None for one in front.candidates):
        yield "on front: how probable it is that the deployment belongs there"
    if front.certified is not None:
        yield front.certified
    if front.ties:
        yield "≈ cannot be told apart from: beaten by these trials, but within the intervals"
    if any(one.bounds is Verdict.UNDECIDED for one in front.candidates):
        yield "? may miss a bound: its interval lies on both sides"


def percent_of(share: float) -> str:
    """Write a probability, as ``97 %``; none is written as sure that is not."""
    if 0 < share < 1 - _SURE:
        return "<1 %"
    return ">99 %" if _SURE < share < 1 else f"{share:.0%}".replace("%", " %")
