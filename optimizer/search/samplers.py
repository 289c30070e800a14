"""Samplers by name, made to propose only deployments that are allowed and not yet tried.

No learning sampler avoids repeats on a finite grid (TPE repeated 95 of 240 trials), and none knows
the rules between axes. :class:`DistinctSampler` wraps one: each joint proposal is moved to the
nearest deployment that is allowed and free, before Optuna stores it, so that what the sampler
learns from is what was measured.
"""

import heapq
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from optimizer.errors import SpaceExhaustedError, UsageError
from optimizer.sampling.limits import MOST_OBJECTIVES, MOST_POINTS
from optimizer.search.forwarding import ForwardingSampler
from optimizer.search.sampler_name import SamplerName
from optimizer.study.encoding import Encoding
from trials.capabilities import EngineIdentity

Indices = tuple[int, ...]

_USUAL_ENGINES = EngineIdentity(axes=("variant", "precision"))
_COUNTABLE = 200_000  # lattice points that are counted one by one, in about a second


class GridOrder(RandomSampler):
    """Propose lattice points in the order of the axes; also after an interruption."""

    def __init__(self, encoding: Encoding, *, repeats: bool) -> None:
        super().__init__()
        self._encoding = encoding
        self._repeats = repeats
        sizes = [range(len(parameter.codes)) for parameter in encoding.parameters]
        self._points: Iterator[Indices] = filter(encoding.allows, product(*sizes))

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002 - Optuna's interface
        search_space: dict[str, BaseDistribution],  # noqa: ARG002 - Optuna's interface
    ) -> dict[str, Any]:
        """Return the next point that no trial has, unless repeats are wanted; else nothing."""
        trials = study._get_trials(deepcopy=False, use_cache=True)  # noqa: SLF001 - see below
        begun = [] if self._repeats else [trial.params for trial in trials]
        proposals = map(self._encoding.params_at, self._points)
        return next((params for params in proposals if params not in begun), {})


class DistinctSampler(ForwardingSampler):
    """Move another sampler's proposals to the nearest allowed and free deployment.

    Trials count as taken while they run, wait or have ended. A trial that was enqueued keeps its
    fixed parameters. Deterministic for a seed. Not thread-safe: one coordinator asks.

    Args:
        inner: Whose proposals are moved.
        encoding: The space.
        seed: Breaks ties between equally near deployments.
        repeats: Allow deployments that were tried before.
    """

    def __init__(
        self, inner: BaseSampler, encoding: Encoding, *, seed: int, repeats: bool = False
    ) -> None:
        super().__init__(inner)
        self._encoding = encoding
        self._rng = np.random.default_rng(seed)
        self._repeats = repeats
        self._taken: set[Indices] = set()
        self._counted = 0
        self._allowed = count_allowed(encoding)

    def infer_relative_search_space(
        self,
        study: Study,  # noqa: ARG002 - Optuna's interface
        trial: FrozenTrial,  # noqa: ARG002 - Optuna's interface
    ) -> dict[str, BaseDistribution]:
        """Propose all parameters jointly, from the first trial on."""
        return dict(self._encoding.distributions)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the inner sampler's proposal, moved where it must be.

        A trial that is tried again has its parameters already and gets none.

        Raises:
            SpaceExhaustedError: Nothing is left to try; ask :meth:`has_free` first.
        """
        if "fixed_params" in trial.system_attrs:
            return {}
        # not inferred from the trials, as samplers do: every trial of a study has these parameters
        searched = {name: one for name, one in search_space.items() if not one.single()}
        params = dict(self._inner.sample_relative(study, trial, searched))
        first = self._encoding.params_at((0,) * len(self._encoding.parameters))
        for name, distribution in search_space.items():
            if distribution.single():
                params[name] = first[name]  # no choice: samplers would warn of being asked
            elif name not in params:
                params[name] = self._inner.sample_independent(study, trial, name, distribution)
        # as the built-in samplers read: one look at the storage for all of them
        trials = study._get_trials(deepcopy=False, use_cache=True)  # noqa: SLF001
        taken = set() if self._repeats else self._taken_in(trials, but=trial.number)
        found = self.nearest_free(self._encoding.indices(params), taken)
        return self._encoding.params_at(found)

    def reseed_rng(self) -> None:
        """Reseed, as Optuna asks of a sampler in a new process."""
        super().reseed_rng()
        self._rng = np.random.default_rng()

    def has_free(self, trials: list[FrozenTrial]) -> bool:
        """Tell whether a study with these trials has a deployment left to try.

        A lattice too large to be counted is taken to have one.
        """
        if self._repeats or self._allowed is None:
            return True
        return len(self._taken_in(trials)) < self._allowed

    def nearest_free(self, start: Indices, taken: set[Indices]) -> Indices:
        """Find the allowed and free lattice point nearest to ``start``.

        Best-first over the lattice: a step along an ordinal axis costs 1, another category costs
        2 (a neighbouring batch size is more alike than another model), ties are drawn.

        Raises:
            SpaceExhaustedError: There is none.
        """
        queue = [(0, 0.0, start)]
        seen = {start}
        while queue:
            cost, _, point = heapq.heappop(queue)
            if point not in taken and self._encoding.allows(point):
                return point
            for step, neighbour in self._neighbours(point):
                if neighbour not in seen:
                    seen.add(neighbour)
                    heapq.heappush(queue, (cost + step, self._rng.random(), neighbour))
        raise SpaceExhaustedError("every deployment that the rules allow has been tried")

    def _neighbours(self, point: Indices) -> Iterator[tuple[int, Indices]]:
        for place, parameter in enumerate(self._encoding.parameters):
            here, count = point[place], len(parameter.codes)
            if parameter.is_ordinal:
                others = [index for index in (here - 1, here + 1) if 0 <= index < count]
                step = 1
            else:
                others = [index for index in range(count) if index != here]
                step = 2
            for other in others:
                yield step, (*point[:place], other, *point[place + 1 :])

    def _taken_in(self, trials: list[FrozenTrial], *, but: int | None = None) -> set[Indices]:
        """Collect what is taken; ended trials never change, so each is decoded once."""
        pending = set()
        for trial in trials[self._counted :]:
            if trial.number == but:
                continue
            params = trial.params or trial.system_attrs.get("fixed_params", {})
            if set(params) >= set(self._encoding.distributions):
                pending.add(self._encoding.indices(params))
            if trial.state.is_finished() and trial.number == self._counted:
                self._counted += 1
                self._taken |= pending
        return self._taken | pending


def sampler_named(
    name: SamplerName,
    encoding: Encoding,
    *,
    seed: int,
    trials: int | None,
    repeats: bool,
    engines: EngineIdentity = _USUAL_ENGINES,
    begun: int = 0,
) -> tuple[DistinctSampler, SamplerName]:
    """Make a sampler; ``auto`` is ours, unless everything is tried anyway.

    Args:
        name: Which one.
        encoding: The space.
        seed: Seeds every random choice.
        trials: Budget in trials, or None where there is none.
        repeats: Allow deployments that were tried before.
        engines: Which deployments share an engine.
        begun: Trials that the study has; who draws by chance must not draw the same again.

    Returns:
        The sampler and the name that ``auto`` came to.

    Raises:
        UsageError: ``gp`` without torch, ``front`` in a space that it does not take on.
    """
    if name is SamplerName.AUTO:
        name = _chosen(encoding, trials)
    inner: BaseSampler
    drawing = seed + begun
    match name:
        case SamplerName.GP:
            check_available(SamplerName.GP)
            inner = gp_sampler(drawing)
        case SamplerName.NSGA2:
            inner = NSGAIISampler(seed=drawing)
        case SamplerName.RANDOM:
            inner = RandomSampler(seed=drawing)
        case SamplerName.GRID:
            inner = GridOrder(encoding, repeats=repeats)
        case SamplerName.FRONT | SamplerName.AUTO:
            inner = _front(encoding, engines, seed)
        case SamplerName.TPE:
            # the liar keeps parallel proposals apart, as the wrapper does; it costs a commit and
            # another look at all trials
            inner = TPESampler(seed=drawing, multivariate=True, constant_liar=False)
    return DistinctSampler(inner, encoding, seed=drawing, repeats=repeats), name


def check_available(name: SamplerName) -> None:
    """See that a sampler can be made here, before anything is begun.

    Raises:
        UsageError: ``gp`` without torch.
    """
    if name is SamplerName.GP and importlib.util.find_spec("torch") is None:
        raise UsageError(
            "the gp sampler needs torch, which is not installed",
            hint="pip install 'trifront[torch]', or choose --sampler tpe",
        )


def count_allowed(encoding: Encoding) -> int | None:
    """Count the deployments that the rules allow; None where the lattice is too large to walk."""
    if lattice_size(encoding) > _COUNTABLE:
        return None
    sizes = [range(len(parameter.codes)) for parameter in encoding.parameters]
    return sum(map(encoding.allows, product(*sizes)))


def lattice_size(encoding: Encoding) -> float:
    """Return the number of points of a space, those that its rules forbid included."""
    return float(np.prod([len(one.codes) for one in encoding.parameters], dtype=float))


def _chosen(encoding: Encoding, trials: int | None) -> SamplerName:
    """Choose random order where all is tried anyway, our own where it can be held, else TPE."""
    allowed = count_allowed(encoding)
    if trials is not None and allowed is not None and allowed <= trials:
        return SamplerName.RANDOM
    return SamplerName.TPE if why_not_front(encoding) else SamplerName.FRONT


def why_not_front(encoding: Encoding) -> str:
    """Say why our own sampler does not take a space on; empty where it does."""
    size, objectives = lattice_size(encoding), len(encoding.space.objectives)
    if size > MOST_POINTS:
        return f"it looks at every point, and here are {size:,.0f}, more than {MOST_POINTS:,}"
    if objectives > MOST_OBJECTIVES:
        return f"it trades off {MOST_OBJECTIVES} objectives, and here are {objectives}"
    return ""


def _front(encoding: Encoding, engines: EngineIdentity, seed: int) -> BaseSampler:
    from optimizer.search.own_sampler import own_sampler

    return own_sampler(encoding, engines, seed=seed)


def gp_sampler(seed: int) -> BaseSampler:
    """Make Optuna's Gaussian process, computing in one thread; needs torch."""
    from optuna.samplers import GPSampler

    class OneThreadedGP(GPSampler):
        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            with _one_thread():
                return super().sample_relative(study, trial, search_space)

    # an axis of one value has nothing to be modelled, and would be warned of at every trial
    return OneThreadedGP(seed=seed, warn_independent_sampling=False)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in this thread alone.

    The matrices of a hundred trials are so small that threads do nothing but wait for each other,
    awake: with two on two cores, proposals take three times the processor and twice the time.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
