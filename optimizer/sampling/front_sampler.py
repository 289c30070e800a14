"""An Optuna sampler for finite spaces that pays for what it tries by the second.

Made for deployments, usable for anything that costs time to set up and time to measure::

    lattice = lattice_of(distributions, shared=("model", "precision"))
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=FrontSampler(lattice, seed=0)
    )
    trial = study.ask(distributions)
    ...
    trial.set_user_attr("price_s", [seconds_to_build, seconds_to_measure])
    study.tell(trial, [log10(latency), accuracy])

What it knows that others do not: the space is finite and nothing is worth trying twice; points
that differ only in parameters that are not ``shared`` need the same engine, which is paid for
once; an objective may belong to the engine; latency times throughput is what is in flight.
Objectives are best told as logarithms where ratios count.
"""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from optimizer.sampling.history import History
from optimizer.sampling.knowledge import Knowledge
from optimizer.sampling.lattice import Lattice
from optimizer.sampling.limits import MOST_OBJECTIVES
from optimizer.sampling.proposing import Proposer


class FrontSampler(RandomSampler):
    """Propose the point with the most expected hypervolume for its price.

    Deterministic for a seed and the same trials, also in a new process. Points that are being
    tried count as measured with the values expected there. Not thread-safe: one coordinator asks.

    Args:
        lattice: The finite space; the study's distributions must be those it was made of.
        knowledge: What is known of the objectives beforehand.
        unmeasured: Name of a constraint; where it is missed, a trial's values are not measured
            ones and only say that the point cannot run. None where there is no such.
        seed: Of ties and of the first points.

    Raises:
        ValueError: When it is asked by a study of more than six objectives, or of one whose trials
            have not all the same constraints.
    """

    def __init__(
        self,
        lattice: Lattice,
        *,
        knowledge: Knowledge | None = None,
        unmeasured: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)  # for parameters that are none of the lattice's
        self._lattice = lattice
        self._knowledge = knowledge or Knowledge()
        self._unmeasured = unmeasured
        self._seed = seed
        self._study_name: str | None = None
        self._history: History | None = None
        self._proposer: Proposer | None = None

    def infer_relative_search_space(
        self,
        study: Study,  # noqa: ARG002 - Optuna's interface
        trial: FrozenTrial,  # noqa: ARG002 - Optuna's interface
    ) -> dict[str, BaseDistribution]:
        """Propose all parameters jointly, from the first trial on."""
        return {axis.name: axis.distribution for axis in self._lattice.axes}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: Mapping[str, BaseDistribution],  # noqa: ARG002 - Optuna's interface
    ) -> dict[str, Any]:
        """Return the parameters of the point that is worth most; none where all are taken."""
        history, proposer = self._opened(study)
        # as the built-in samplers read: one look at the storage, and no copies
        trials = study._get_trials(deepcopy=False, use_cache=True)  # noqa: SLF001
        row = proposer.propose(history.snapshot(trials, but=trial.number))
        return {} if row is None else self._lattice.params(row)

    def _opened(self, study: Study) -> tuple[History, Proposer]:
        if self._history is None or self._proposer is None or self._study_name != study.study_name:
            self._study_name = study.study_name
            self._history = History(self._lattice, study.directions, unmeasured=self._unmeasured)
            if len(study.directions) > MOST_OBJECTIVES:
                raise ValueError(
                    f"the study has {len(study.directions)} objectives, at most "
                    f"{MOST_OBJECTIVES} are traded off; make constraints of some"
                )
            self._proposer = Proposer(
                self._lattice,
                self._knowledge,
                objectives=len(study.directions),
                seed=self._seed,
            )
        return self._history, self._proposer
