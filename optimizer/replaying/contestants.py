"""Who may race: samplers by name, made for a table and a seed.

To enter a sampler, add its row to ``_CONTESTANTS``. It may look at the table's space and at which
rows share a model and an engine, which every search knows before its first trial, and at nothing
else. Proposals that the rules of a space forbid are moved to the nearest that they allow; one that
was tried before only where the name ends in ``-distinct``, which every learner has.
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial

from optimizer.errors import UsageError
from optimizer.replaying.climbing import HillClimber
from optimizer.replaying.table import DeploymentTable, flat_positions, sizes_of
from optimizer.sampling.front_sampler import FrontSampler
from optimizer.sampling.lattice import Points, Rows, lattice_of
from optimizer.search.forwarding import ForwardingSampler
from optimizer.search.own_sampler import allowed, knowledge_of
from optimizer.search.samplers import DistinctSampler, GridOrder, gp_sampler
from optimizer.study.encoding import Encoding
from optimizer.study.objectives import DEPLOYABLE
from search_spaces.spelling import did_you_mean

Maker: TypeAlias = Callable[[DeploymentTable, Encoding, int], BaseSampler]
"""Makes a sampler for a table, its encoding and a seed."""

FRONT, RANDOM, GRID = "front", "random", "grid"

_DISTINCT = "-distinct"
_GP_TRIALS = 100  # 1 to 2 s of CPU each until there, 9 s at 500
_HUB = "samplers/auto_sampler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A sampler that may race.

    Attributes:
        make: Makes it.
        needs: Python package that it cannot do without; empty for none.
        most_trials: After so many it is stopped, as proposing gets too slow; None for never.
        is_builtin: Optuna brings it.
        is_remote: It is downloaded when it is first made.
    """

    name: str
    make: Maker
    needs: str = ""
    most_trials: int | None = None
    is_builtin: bool = False
    is_remote: bool = False

    @property
    def is_available(self) -> bool:
        """Tell whether what it needs is installed."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


def contestants_named(names: Sequence[str]) -> tuple[Contestant, ...]:
    """Look contestants up; ``all`` is every one that is installed and needs no network.

    Raises:
        UsageError: There is none of a name, or what it needs is not installed.
    """
    known = {one.name: one for one in _CONTESTANTS}
    found: dict[str, Contestant] = {}
    for name in names:
        if name == "all":
            found |= {
                name: one for name, one in known.items() if one.is_available and not one.is_remote
            }
            continue
        if name not in known:
            raise UsageError(
                f"there is no contestant {name!r}; {did_you_mean(name, known)}",
                hint=f"there are: {', '.join(known)}",
            )
        if not known[name].is_available:
            raise UsageError(
                f"contestant {name!r} needs {known[name].needs}, which is not installed",
                hint=f"pip install {known[name].needs}, or name another one with --sampler",
            )
        found[name] = known[name]
    return tuple(found.values())


def names_of_contestants() -> tuple[str, ...]:
    """Name everybody who may race, installed or not."""
    return tuple(one.name for one in _CONTESTANTS)


def serving_axes(table: DeploymentTable) -> tuple[str, ...]:
    """Name the ordered axes along which the engine stays the same, and the batch size."""
    names = []
    for at, parameter in enumerate(Encoding(table.space).parameters):
        is_serving = _engines_along(table, at)[0]
        if parameter.is_ordinal and (is_serving or parameter.axis.name == "batch_size"):
            names.append(parameter.axis.name)
    return tuple(names)


def engine_axes(table: DeploymentTable) -> tuple[str, ...]:
    """Name the axes along which engines always differ."""
    return tuple(
        axis.name
        for at, axis in enumerate(table.space.axes)
        if len(axis.values) > 1 and _engines_along(table, at)[1]
    )


def _engines_along(table: DeploymentTable, at: int) -> tuple[bool, bool]:
    """Tell whether rows that differ only on one axis share their engine: all, and none."""
    strides = np.cumprod((1, *sizes_of(table.space)[:0:-1]))[::-1]
    rest = table.flat - table.positions[:, at] * strides[at]
    lines = np.unique(rest, return_inverse=True)[1].ravel()
    pairs = np.unique(np.stack([lines, table.engines]), axis=1)
    return pairs.shape[1] == lines.max(initial=-1) + 1, pairs.shape[1] == len(table)


class _AsItIs(ForwardingSampler):
    """Let a sampler choose what it proposes jointly, as Optuna does where nobody moves anything.

    TPE draws each parameter for itself where there are several objectives, unless told otherwise.
    """

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],  # noqa: ARG002 - Optuna's interface
    ) -> dict[str, Any]:
        """Return the inner sampler's proposal for what it wants to propose jointly."""
        wanted = self._inner.infer_relative_search_space(study, trial)
        return super().sample_relative(study, trial, wanted)


def _moved(make: Callable[[int], BaseSampler], *, repeats: bool) -> Maker:
    def moved(_table: DeploymentTable, encoding: Encoding, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            inner = make(seed)
        return DistinctSampler(_AsItIs(inner), encoding, seed=seed, repeats=repeats)

    return moved


def _both(
    name: str,
    make: Callable[[int], BaseSampler],
    *,
    needs: str = "",
    most_trials: int | None = None,
    is_remote: bool = False,
) -> Iterator[Contestant]:
    """Yield a sampler as it is, and kept from repeats."""
    for ending, repeats in (("", True), (_DISTINCT, False)):
        yield Contestant(
            name=name + ending,
            make=_moved(make, repeats=repeats),
            needs=needs,
            most_trials=most_trials,
            is_builtin=not is_remote,
            is_remote=is_remote,
        )


def _sobol(seed: int) -> BaseSampler:
    return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


def _auto(seed: int) -> BaseSampler:
    """Make OptunaHub's AutoSampler, from its cache or the network.

    Raises:
        UsageError: It is not to be had.
    """
    import optunahub

    try:
        sampler: BaseSampler = optunahub.load_module(_HUB).AutoSampler(seed=seed)
    except Exception as error:  # whatever git and GitHub raise
        raise UsageError(
            f"OptunaHub's {_HUB} cannot be loaded: {str(error).splitlines()[0]}",
            hint="it is downloaded when first used; name other contestants with --sampler",
        ) from error
    return sampler


def _hill(table: DeploymentTable, encoding: Encoding, seed: int) -> BaseSampler:
    return HillClimber(encoding, serving_axes(table), seed=seed)


def _grid(_table: DeploymentTable, encoding: Encoding, seed: int) -> BaseSampler:
    # it never comes back to a point, so it need not look at what was tried
    return DistinctSampler(GridOrder(encoding, repeats=True), encoding, seed=seed, repeats=True)


def _front(table: DeploymentTable, encoding: Encoding, seed: int) -> BaseSampler:
    lattice = lattice_of(
        encoding.distributions,
        shared=[one.name for one in encoding.parameters if one.axis.name in engine_axes(table)],
        allows=lambda points: allowed(encoding, points),
        engines=lambda points: _engines_at(table, points),
    )
    return FrontSampler(
        lattice, knowledge=knowledge_of(encoding), unmeasured=DEPLOYABLE, seed=seed
    )


def _engines_at(table: DeploymentTable, points: Points) -> Rows:
    """Number the engines of points as the table does; one that it lacks has one of its own."""
    flat = flat_positions(points.astype(np.int64), table.space)
    at = np.minimum(np.searchsorted(table.flat, flat), len(table) - 1)
    return np.where(table.flat[at] == flat, table.engines[at], len(table.engine_names) + flat)


_CONTESTANTS = (
    Contestant(name=FRONT, make=_front),
    *_both(RANDOM, lambda seed: RandomSampler(seed=seed)),
    *_both("sobol", _sobol),
    *_both("nsga2", lambda seed: NSGAIISampler(seed=seed)),
    *_both("tpe", lambda seed: TPESampler(seed=seed)),
    *_both("tpe-multivariate", lambda seed: TPESampler(seed=seed, multivariate=True)),
    *_both("gp", gp_sampler, needs="torch", most_trials=_GP_TRIALS),
    *_both("auto", _auto, needs="optunahub", is_remote=True),
    Contestant(name="hill", make=_hill),
    Contestant(name=GRID, make=_grid),
)
