"""A sampler that climbs hills, to race against."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optimizer.errors import SpaceExhaustedError
from optimizer.replaying.hill import Hill, Indices, Seen
from optimizer.study.encoding import Encoding
from optimizer.study.objectives import DEPLOYABLE
from search_spaces.metrics import Scale

_OBJECTIVE = "throughput_sps"


class HillClimber(RandomSampler):
    """Propose by climbing; needs all trials of its study to be its own, told in order.

    Args:
        encoding: The space.
        climbed: Names of the axes that are climbed, ordinal ones.
        seed: Of the order of the combinations.
    """

    def __init__(self, encoding: Encoding, climbed: Sequence[str], *, seed: int) -> None:
        super().__init__(seed=seed)  # for parameters that are not ours
        self._encoding = encoding
        self._places = [
            place
            for place, parameter in enumerate(encoding.parameters)
            if parameter.axis.name in climbed
        ]
        self._random = np.random.default_rng(seed)
        self._known: dict[Indices, Seen | None] = {}
        self._points = self._all_climbs()
        self._asked: Indices | None = None
        names = [one.metric.name for one in encoding.space.objectives]
        self._column = names.index(_OBJECTIVE) if _OBJECTIVE in names else 0

    def infer_relative_search_space(
        self,
        study: Study,  # noqa: ARG002 - Optuna's interface
        trial: FrozenTrial,  # noqa: ARG002 - Optuna's interface
    ) -> dict[str, BaseDistribution]:
        """Propose all parameters jointly."""
        return dict(self._encoding.distributions)

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002 - Optuna's interface
        trial: FrozenTrial,  # noqa: ARG002 - Optuna's interface
        search_space: dict[str, BaseDistribution],  # noqa: ARG002 - Optuna's interface
    ) -> dict[str, Any]:
        """Return the next point of the climb.

        Raises:
            SpaceExhaustedError: All has been climbed.
        """
        self._asked = next(self._points, None)
        if self._asked is None:
            raise SpaceExhaustedError("every combination has been climbed")
        return self._encoding.params_at(self._asked)

    def after_trial(
        self,
        study: Study,  # noqa: ARG002 - Optuna's interface
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Remember what came of the point."""
        assert self._asked is not None, "trials are told in the order in which they were asked"
        self._known[self._asked] = self._seen(trial.constraints, state, values)

    def _seen(
        self, constraints: Mapping[str, float], state: TrialState, values: Sequence[float] | None
    ) -> Seen | None:
        if state is not TrialState.COMPLETE or values is None or constraints[DEPLOYABLE] > 0:
            return None
        objective = self._encoding.space.objectives[self._column]
        value = values[self._column]
        if objective.metric.scale is Scale.LOG:
            value *= math.log(10)
        return Seen(
            goodness=-value if objective.better(0.0, 1.0) else value,
            missed=sum(max(0.0, violation) for violation in constraints.values()),
        )

    def _all_climbs(self) -> Iterator[Indices]:
        sizes = [len(parameter.codes) for parameter in self._encoding.parameters]
        fixed = [
            range(1) if place in self._places else range(size) for place, size in enumerate(sizes)
        ]
        starts = list(product(*fixed))
        for at in self._random.permutation(len(starts)):
            hill = Hill(self._encoding, self._places, self._known, start=starts[at])
            yield from hill.climb()
            yield from hill.sweep()
