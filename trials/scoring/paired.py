"""Two engines on the same samples: what their scores differ by, and whether that is chance. Pure.

On the same samples most answers are alike, and only those that are not say anything: the
difference of two accuracies is known several times better than either of them.

References:
    McNemar, Q. (1947), Note on the sampling error of the difference between correlated
        proportions or percentages. Psychometrika 12, 153-157. Here in its exact, binomial form.
    Tango, T. (1998), Equivalence test and confidence interval for the difference in proportions
        for the paired-sample design. Statistics in Medicine 17, 891-908. The score interval, which
        holds where few samples differ, or none.
    Holm, S. (1979), A simple sequentially rejective multiple test procedure. Scandinavian J. of
        Statistics 6, 65-70.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trials.measurement import Estimate, exact
from trials.scoring.calibration import Floats

_LEVEL = 0.05  # of a two-sided test, as of the intervals
_Z = 1.959963984540054  # normal quantile at 0.975


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """How two engines' scores of the same samples differ.

    Attributes:
        difference: Mean of new - old, with its 95 % interval.
        differing: Samples on which the two differ.
        samples: Of all.
        doubt: Probability of a difference at least as large by chance alone, in [0, 1].
    """

    difference: Estimate
    differing: int
    samples: int
    doubt: float


def paired_difference(new: Floats, old: Floats) -> PairedDifference:
    """Compare two engines' scores of the same samples.

    Hits and misses by McNemar's exact test and Tango's score interval, other scores by a paired
    t-test and its interval.

    Args:
        new: Shape ``(samples,)``, at least one.
        old: Likewise, of the same samples in the same order.

    Raises:
        ValueError: No sample, or another number of them.
    """
    differences = _differences(new, old)
    differing = int(np.count_nonzero(differences))
    if _are_hits(new, old):
        won, lost = _won_and_lost(differences)
        difference, doubt = tango(won, lost, new.size), mcnemar(won, lost)
    else:
        difference, doubt = _student(differences)
    return PairedDifference(
        difference=difference, differing=differing, samples=new.size, doubt=doubt
    )


def certain_gap(new: Floats, old: Floats) -> float:
    """Return the mean difference where it is certain, 0 where no sample differs, else NaN.

    Raises:
        ValueError: As for :func:`paired_difference`.
    """
    differences = _differences(new, old)
    if not differences.any():
        return 0.0
    doubt = (
        mcnemar(*_won_and_lost(differences)) if _are_hits(new, old) else _student(differences)[1]
    )
    return float(differences.mean()) if doubt < _LEVEL else math.nan


def _differences(new: Floats, old: Floats) -> Floats:
    if new.size == 0 or new.shape != old.shape:
        raise ValueError(f"{new.size} and {old.size} scores are not of the same samples")
    return new - old


def _are_hits(new: Floats, old: Floats) -> bool:
    return all(bool(np.isin(each, (0.0, 1.0)).all()) for each in (new, old))


def _won_and_lost(differences: Floats) -> tuple[int, int]:
    return int(np.count_nonzero(differences > 0)), int(np.count_nonzero(differences < 0))


def by_cohort(new: Floats, old: Floats, cohorts: NDArray[np.str_]) -> dict[str, PairedDifference]:
    """Compare within each cohort, sorted by name; the doubts are Holm's.

    A cohort whose doubt is below 5 % differs, and in at most 5 % of comparisons of equal engines
    does any.

    Raises:
        ValueError: As for :func:`paired_difference`.
    """
    found = {
        str(name): paired_difference(new[cohorts == name], old[cohorts == name])
        for name in np.unique(cohorts)
    }
    adjusted = holm({name: one.doubt for name, one in found.items()})
    return {
        name: PairedDifference(
            difference=one.difference,
            differing=one.differing,
            samples=one.samples,
            doubt=adjusted[name],
        )
        for name, one in found.items()
    }


def mcnemar(won: int, lost: int) -> float:
    """Return the exact two-sided probability of a split as uneven as this.

    Args:
        won: Samples that the new engine alone got right.
        lost: Samples that the old engine alone got right.
    """
    from scipy.special import bdtr

    if won + lost == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def tango(won: int, lost: int, samples: int) -> Estimate:
    """Estimate the difference of two paired proportions, with Tango's score interval.

    Args:
        won: Samples that the new engine alone got right.
        lost: Samples that the old engine alone got right.
        samples: Of all, >= 1.
    """
    from scipy.optimize import brentq

    value = (won - lost) / samples

    def excess(difference: float, limit: float) -> float:
        return _score(won, lost, samples, difference) - limit

    # at the ends of [-1, 1] the score has no spread and is infinite
    near_one = 1 - 1e-12
    low, high = -1.0, 1.0
    if excess(-near_one, _Z) > 0:
        low = float(brentq(excess, -near_one, value, args=(_Z,), xtol=1e-12))
    if excess(near_one, -_Z) < 0:
        high = float(brentq(excess, value, near_one, args=(-_Z,), xtol=1e-12))
    return Estimate(value=value, low=low, high=high)


def holm(doubts: Mapping[str, float]) -> dict[str, float]:
    """Raise the probabilities of several tests so that they may be looked at together."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(doubts, key=lambda name: doubts[name])):
        highest = max(highest, min(1.0, (len(doubts) - rank) * doubts[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in doubts}


def _score(won: int, lost: int, samples: int, difference: float) -> float:
    """Return Tango's score statistic of a hypothetical difference."""
    double = 2 * samples
    linear = -won - lost + (double - won + lost) * difference
    constant = -lost * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear**2 - 4 * double * constant))
    lost_share = (root - linear) / (2 * double)
    variance = samples * (2 * lost_share + difference * (1 - difference))
    distance = won - lost - samples * difference
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _student(differences: Floats) -> tuple[Estimate, float]:
    from scipy.special import stdtr, stdtrit

    value = float(differences.mean())
    if differences.size == 1:
        return Estimate(value=value, low=None, high=None), 1.0
    error = float(differences.std(ddof=1)) / math.sqrt(differences.size)
    if error == 0:
        return exact(value), 0.0 if value else 1.0
    degrees = differences.size - 1
    half = float(stdtrit(degrees, 0.975)) * error
    doubt = 2 * float(stdtr(degrees, -abs(value) / error))
    return Estimate(value=value, low=value - half, high=value + half), doubt
