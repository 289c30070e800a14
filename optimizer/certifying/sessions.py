"""Speeds over sessions: their centre and spread, and draws of them. Pure.

What changes when an engine is loaded again (where its memory lies, who its neighbours are) does
not show within a session. So a session counts as one value, and the interval of a speed is that of
the mean of its logarithms over sessions. With three sessions a spread is no more than a guess
(Student's t with 2 degrees allows for it by a factor of 4.3), but all candidates have sessions:
their spreads are pooled, and each candidate gets the pooled one or its own, whichever is larger.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from trials.measurement import Estimate
from trials.measuring.statistics import CONFIDENCE

_FEWEST = 2  # sessions; one has no spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The mean logarithm of a speed over sessions.

    Attributes:
        error: Its standard error; infinite where it is not known.
        degrees: Of freedom, of that error.
    """

    mean: float
    error: float
    degrees: float

    def estimate(self) -> Estimate:
        """Return the speed with its 95 % interval."""
        from scipy.special import stdtrit

        value = math.exp(self.mean)
        if math.isinf(self.error):
            return Estimate(value=value, low=None, high=None)
        reach = float(stdtrit(self.degrees, (1 + CONFIDENCE) / 2)) * self.error
        return Estimate(
            value=value, low=math.exp(self.mean - reach), high=math.exp(self.mean + reach)
        )

    def drawn(self, seed: str, *, draws: int) -> NDArray[np.float64]:
        """Draw what the speed may be, shape ``(draws,)``; the same for the same seed."""
        random = np.random.default_rng(int.from_bytes(sha256(seed.encode()).digest()[:8]))
        found: NDArray[np.float64] = np.exp(
            self.mean + self.error * random.standard_t(self.degrees, draws)
        )
        return found


def spreads(values: Mapping[int, Sequence[float]]) -> dict[int, Spread]:
    """Estimate one speed of several candidates.

    Args:
        values: By candidate, one positive value for each session.

    Returns:
        Those that have at least two sessions.
    """
    logs = {
        trial: np.log(np.asarray(each, dtype=float))
        for trial, each in values.items()
        if len(each) >= _FEWEST
    }
    if not logs:
        return {}
    degrees = sum(each.size - 1 for each in logs.values())
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in logs.values())
    pooled = squares / degrees
    found = {}
    for trial, each in logs.items():
        own = float(each.var(ddof=1))
        variance, freedom = (pooled, degrees) if pooled >= own else (own, each.size - 1)
        found[trial] = Spread(
            mean=float(each.mean()), error=math.sqrt(variance / each.size), degrees=freedom
        )
    return found
