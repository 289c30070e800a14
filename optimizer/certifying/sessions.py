"""Speeds over sessions: their centre and spread, and draws of them. Pure.

What changes when an engine is loaded again (where its memory lies, who its neighbours are) does
not show within a session. So a session counts as one value, and the interval of a speed is that of
the mean of its logarithms over sessions. With three sessions a spread is no more than a guess
(Student's t with 2 degrees allows for it by a factor of 4.3), but all candidates have sessions:
their spreads are pooled, and each candidate gets the pooled one or its own, whichever is larger.
The speeds of a session move together, and are drawn so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from trials.measurement import Estimate
from trials.measuring.statistics import CONFIDENCE

FEWEST_SESSIONS = 2  # one has no spread


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Speeds:
    """All speeds of several candidates over sessions.

    Attributes:
        spreads: By metric and candidate; all metrics have the same candidates.
        root: A square root of the correlation of the metrics within a session, pooled over the
            candidates, shape ``(metrics, metrics)`` in the order of ``spreads``.
    """

    spreads: Mapping[str, Mapping[int, Spread]]
    root: NDArray[np.float64]

    @property
    def candidates(self) -> frozenset[int]:
        """Those that have at least two sessions."""
        return frozenset(next(iter(self.spreads.values())))

    def drawn(self, trial: int, seed: str, *, draws: int) -> dict[str, NDArray[np.float64]]:
        """Draw what the speeds of a candidate may be, each of shape ``(draws,)``, together.

        A slow session is slow in every metric: drawn one by one, two equal candidates would be
        told apart far too often, because each would win somewhere. The same for the same seed.
        """
        from scipy.special import chdtri

        random = np.random.default_rng(int.from_bytes(sha256(seed.encode()).digest()[:8]))
        normals = random.standard_normal((draws, len(self.root))) @ self.root.T
        luck = random.random(draws)
        found = {}
        for (name, each), normal in zip(self.spreads.items(), normals.T, strict=True):
            one = each[trial]
            student = normal * np.sqrt(one.degrees / chdtri(one.degrees, luck))
            found[name] = np.exp(one.mean + one.error * student)
        return found

    def known_exactly(self) -> "Speeds":
        """Return what endless sessions would tell if they went on like these."""
        return replace(
            self,
            spreads={
                name: {trial: replace(one, error=0.0) for trial, one in each.items()}
                for name, each in self.spreads.items()
            },
        )


def speeds_of(values: Mapping[str, Mapping[int, Sequence[float]]]) -> Speeds:
    """Estimate all speeds of several candidates.

    Args:
        values: By metric and candidate, one positive value for each session, in the same order.
    """
    return Speeds(
        spreads={name: spreads(each) for name, each in values.items()},
        root=_root_of_correlation(values),
    )


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
        if len(each) >= FEWEST_SESSIONS
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


def _root_of_correlation(
    values: Mapping[str, Mapping[int, Sequence[float]]],
) -> NDArray[np.float64]:
    """Return a root of how the metrics move together from session to session."""
    deviations = np.array(
        [
            np.concatenate([_deviations(each[trial]) for trial in sorted(each)] or [np.zeros(1)])
            for each in values.values()
        ]
    )
    lengths = np.sqrt((deviations**2).sum(axis=1, keepdims=True))
    units = np.divide(deviations, lengths, out=np.zeros_like(deviations), where=lengths > 0)
    correlation = units @ units.T
    np.fill_diagonal(correlation, 1.0)  # what does not vary moves with nothing
    sizes, axes = np.linalg.eigh(correlation)
    root: NDArray[np.float64] = axes * np.sqrt(np.maximum(sizes, 0.0))
    return root


def _deviations(values: Sequence[float]) -> NDArray[np.float64]:
    logs = np.log(np.asarray(values, dtype=float))
    found: NDArray[np.float64] = logs - logs.mean()
    return found
