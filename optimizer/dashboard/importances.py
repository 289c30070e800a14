"""Which parameters matter for which objective, computed from what the sampler was told.

Importances rest on ranks, so units do not matter, and a parameter that makes a deployment
impossible should count. optuna-dashboard's own function would fail on completed trials without
values, and keeps its answers by the number of a study, also when another study has got it.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


def importances_of(storage: BaseStorage, name: str) -> list[list[dict[str, Any]]]:
    """Compute importances for each objective, in the form in which the page takes them.

    Args:
        storage: With the values that the sampler was told.
        name: Of the study.

    Returns:
        Nothing per objective where fewer than two trials are completed.
    """
    from optuna.importance import PedAnovaImportanceEvaluator

    study = optuna.load_study(study_name=name, storage=storage)
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(completed) < 2:  # noqa: PLR2004 - one value is neither better nor worse
        return [[] for _ in study.directions]
    kinds = {
        parameter: type(distribution).__name__
        for trial in completed
        for parameter, distribution in trial.distributions.items()
    }
    found = []
    for objective, direction in enumerate(study.directions):
        with warnings.catch_warnings():
            # it says to turn targets to be maximized around, which is done
            warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes", UserWarning)
            shares = optuna.importance.get_param_importances(
                study, target=_cost(objective, direction), evaluator=PedAnovaImportanceEvaluator()
            )
        found.append(
            [
                {"name": parameter, "importance": share, "distribution": kinds[parameter]}
                for parameter, share in (shares or _alike(completed)).items()
            ]
        )
    return found


def _cost(objective: int, direction: StudyDirection) -> Callable[[FrozenTrial], float]:
    sign = -1 if direction is StudyDirection.MAXIMIZE else 1
    return lambda trial: sign * trial.values[objective]


def _alike(completed: Sequence[FrozenTrial]) -> dict[str, float]:
    """Give every parameter the same share, where none can be told to matter more."""
    parameters = sorted({name for trial in completed for name in trial.params})
    return {name: 1 / len(parameters) for name in parameters}
