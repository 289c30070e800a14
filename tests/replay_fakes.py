"""Tables and samplers for tests of replaying."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from optimizer.replaying.generating import Recipe, generated_table
from optimizer.replaying.table import DeploymentTable
from optimizer.study.encoding import Encoding

SMALL = Recipe(variants=2, precisions=2, builds=1, batches=3, concurrencies=2, threads=1)
TABLE = generated_table(SMALL)
"""24 deployments of 4 engines, all of which run."""
CROWDED = generated_table(
    Recipe(seed=3, variants=3, precisions=3, builds=1, batches=5, memory_gb=0.3, refused=0.5)
)
"""810 deployments of 9 engines, many of which do not run."""


class InOrder(RandomSampler):
    """A sampler that tries the rows that it is told to."""

    def __init__(self, table: DeploymentTable, rows: Sequence[int]) -> None:
        super().__init__(seed=0)
        self._encoding = Encoding(table.space)
        self._table = table
        self._rows = iter(rows)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Propose all parameters."""
        del study, trial
        return dict(self._encoding.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next row."""
        del study, trial, search_space
        return self._encoding.params(self._table.deployment(next(self._rows)))


def same(left: DeploymentTable, right: DeploymentTable) -> bool:
    """Tell whether two tables say the same, to the last digit."""
    arrays = [
        (getattr(left, name), getattr(right, name)) for name in ("positions", "states", "flat")
    ]
    arrays += [
        (getattr(left.metrics, name), getattr(right.metrics, name))
        for name in ("values", "lows", "highs")
    ]
    arrays += [(left.prices.own_s, right.prices.own_s), (left.models, right.models)]
    arrays += [(left.prices.engine_s, right.prices.engine_s), (left.engines, right.engines)]
    plain = [
        (table.space, table.origin, table.kinds, table.reasons, table.metrics.names)
        for table in (left, right)
    ]
    names = [(table.model_names, table.engine_names) for table in (left, right)]
    return (
        plain[0] == plain[1]
        and names[0] == names[1]
        and all(np.array_equal(one, other, equal_nan=True) for one, other in arrays)
    )
