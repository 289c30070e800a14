"""Our own sampler for a deployment space, with what is known of any deployment beforehand."""

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import UsageError
from optimizer.sampling.front_sampler import FrontSampler
from optimizer.sampling.knowledge import Knowledge, LittlesLaw
from optimizer.sampling.lattice import Lattice, Points, Rows, lattice_of
from optimizer.search.samplers import why_not_front
from optimizer.study.encoding import Encoding
from optimizer.study.objectives import DEPLOYABLE
from search_spaces.space import SearchSpace
from trials.capabilities import EngineIdentity

_OF_ENGINE = frozenset(
    {
        "accuracy",
        "accuracy_top5",
        "macro_f1",
        "score",
        "brier",
        "log_loss",
        "ece",
        "engine_size_mb",
    }
)
_IN_FLIGHT = ("batch_size", "concurrency")


def own_sampler(encoding: Encoding, engines: EngineIdentity, *, seed: int) -> FrontSampler:
    """Make our sampler for a space.

    Args:
        encoding: The space.
        engines: Which deployments share an engine.
        seed: Of ties and of the first points.

    Raises:
        UsageError: The space is too large, or has too many objectives.
    """
    return FrontSampler(
        lattice_of_space(encoding, engines),
        knowledge=knowledge_of(encoding),
        unmeasured=DEPLOYABLE,
        seed=seed,
    )


def lattice_of_space(encoding: Encoding, engines: EngineIdentity) -> Lattice:
    """Enumerate the deployments that the rules allow.

    Args:
        encoding: The space.
        engines: Which deployments share an engine.

    Raises:
        UsageError: The space is too large, or has too many objectives.
    """
    reason = why_not_front(encoding)
    if reason:
        raise UsageError(
            f"our own sampler does not take '{encoding.space.name}' on: {reason}",
            hint="choose --sampler tpe, or make the space smaller",
        )
    return lattice_of(
        encoding.distributions,
        shared=[one.name for one in encoding.parameters if one.axis.name in engines.axes],
        allows=lambda points: allowed(encoding, points),
        engines=lambda points: _engine_numbers(encoding, engines, points),
    )


def _engine_numbers(encoding: Encoding, engines: EngineIdentity, points: Points) -> Rows:
    """Number the engines of points: equal numbers, same engine."""
    axes = encoding.space.axes
    places = [at for at, axis in enumerate(axes) if axis.name in engines.axes]
    sizes = [len(axes[at].values) for at in places]
    kinds = np.ravel_multi_index(tuple(points[:, places].T), sizes)
    bound = np.zeros(math.prod(sizes), dtype=bool)
    for values in engines.with_batch:
        at = [axes[place].values.index(value) for place, value in zip(places, values, strict=True)]
        bound[np.ravel_multi_index(tuple(at), sizes)] = True
    batch = next(at for at, axis in enumerate(axes) if axis.name == "batch_size")
    size = 1 + len(axes[batch].values)
    return np.asarray(kinds * size + np.where(bound[kinds], 1 + points[:, batch], 0))


def knowledge_of(encoding: Encoding) -> Knowledge:
    """Say which objectives belong to the engine, and whether Little's law ties two of them."""
    space = encoding.space
    wanted = [one.metric.name for one in space.objectives]
    of_engine = frozenset(at for at, name in enumerate(wanted) if name in _OF_ENGINE)
    bounds = frozenset(str(one) for one in space.constraints if one.metric.name in _OF_ENGINE)
    latencies = tuple(at for at, name in enumerate(wanted) if name.startswith("latency_"))
    if not latencies or "throughput_sps" not in wanted or _is_open(space):
        return Knowledge(of_engine=of_engine, bounds_of_engine=bounds)
    law = LittlesLaw(
        latencies=latencies,
        throughput=wanted.index("throughput_sps"),
        amounts={
            one.name: tuple(math.log10(float(value)) for value in one.axis.values)
            for one in encoding.parameters
            if one.axis.name in _IN_FLIGHT
        },
    )
    return Knowledge(of_engine=of_engine, bounds_of_engine=bounds, law=law)


def allowed(encoding: Encoding, points: Points) -> NDArray[np.bool_]:
    """Tell which points the rules of the space allow.

    Each rule is asked once for each combination of the values that it speaks of, not once for each
    point.

    Args:
        encoding: The space.
        points: Indices of values, shape ``(points, axes)``.
    """
    result = np.ones(len(points), dtype=bool)
    axes = encoding.space.axes
    for rule in encoding.space.rules:
        places = [at for at, axis in enumerate(axes) if axis.name in rule.names]
        sizes = [len(axes[at].values) for at in places]
        combinations = product(*(axes[at].values for at in places))
        names = [axes[at].name for at in places]
        table = np.array(
            [rule.allows(dict(zip(names, values, strict=True))) for values in combinations]
        )
        result &= table[np.ravel_multi_index(tuple(points[:, places].T), sizes)]
    return result


def _is_open(space: SearchSpace) -> bool:
    return space.plan.arrivals is not None or any(axis.name == "load" for axis in space.axes)
