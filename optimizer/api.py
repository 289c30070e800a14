"""trifront for notebooks: what the command line does, as functions and pandas frames.

::

    import optimizer.api as trifront

    study = trifront.search("fashion-mnist", trials=20)
    study.front().table()            # members and ties with intervals, as a DataFrame
    study.front().figure()           # interactive, in a notebook
    study.trial("knee").metrics()
    folder = study.export("knee", to="deploy")
    trifront.verify(folder).passed

Everything lies in a workspace folder, as on the command line; both see the same studies. Numbers
are in people's units (milliseconds, samples/s). The same errors are raised as the command line
prints: their text says what happened, ``hint`` what to do.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.notebooks.study import Study
from optimizer.verification.defaults import MARGIN, SESSIONS
from optimizer.wiring import place_at, study_at
from search_spaces.catalog import space_path
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace

if TYPE_CHECKING:
    from optimizer.tracking.registry import Registered
    from optimizer.verification.findings import Findings

_WORKSPACE = "trifront"


def load_space(source: str | Path) -> SearchSpace:
    """Read a space file, or a shipped space by its name.

    Raises:
        SpaceError: It cannot be read or meant.
    """
    return space_from_yaml(space_path(str(source)))


def search(
    space: str | Path | SearchSpace,
    *,
    trials: int | None = None,
    time_s: float | None = None,
    study: str | None = None,
    sampler: str = "auto",
    seed: int = 0,
    workspace: str | Path = _WORKSPACE,
    storage: str | None = None,
    mlflow: str | None = None,
    repeat: bool = False,
    sentinel: bool = True,
) -> Study:
    """Search a space, or go on with its study; progress goes to standard error.

    Args:
        space: A space file, the name of a shipped space, or what :func:`load_space` returned.
        trials: Stop after so many trials of the study; None for no limit.
        time_s: Stop after so many seconds of trials; None for no limit. Without either limit the
            search ends when the front has stopped growing.
        study: Name of the study; the space's own unless told.
        sampler: ``auto``, ``gp``, ``tpe``, ``nsga2``, ``random`` or ``grid``.
        seed: Seeds the sampler.
        workspace: Folder that remembers everything.
        storage: Optuna storage URL; SQLite in the workspace unless told.
        mlflow: MLflow tracking URI, or ``none``; SQLite in the workspace unless told.
        repeat: Allow deployments that were measured before.
        sentinel: Measure one deployment again and again, to see whether the machine drifts.

    Raises:
        SpaceError: A space file that cannot be meant.
        TrialError: A model or data that cannot be used.
        OptimizerError: A study, storage or workspace that cannot be used.
        ValueError: There is no such sampler.
    """
    from rich.console import Console

    from optimizer.search.budget import Budget
    from optimizer.search.sampler_name import SamplerName
    from optimizer.search.session import SearchOrder, searched

    order = SearchOrder(
        space=space.source if isinstance(space, SearchSpace) else str(space),
        study=study,
        budget=Budget(trials=trials, time_s=time_s),
        sampler=SamplerName(sampler),
        seed=seed,
        repeats=repeat,
        mlflow=mlflow,
        sentinel=sentinel,
    )
    place = place_at(Path(workspace), storage)
    # lines, as in a log: a panel that redraws itself fills a notebook with its every state
    console = Console(stderr=True, force_jupyter=False, force_terminal=False)
    with searched(order, place, console) as (_, found):
        return Study(found, place)


def open_study(
    name: str | None = None,
    *,
    workspace: str | Path = _WORKSPACE,
    storage: str | None = None,
) -> Study:
    """Open a study to read it; without a name, the one that was used last.

    Raises:
        StudyError: There is none.
        StorageError: The storage is out of reach.
    """
    place = place_at(Path(workspace), storage)
    return Study(study_at(place, name), place)


def verify(folder: str | Path, *, margin: float = MARGIN, sessions: int = SESSIONS) -> "Findings":
    """Check an export: every byte, its answers, its accuracy and its speed.

    Args:
        folder: What was exported.
        margin: Share of a speed that does not matter, such as 0.1.
        sessions: How often the speed is measured; 0 for not at all.

    Returns:
        What was found; ``passed`` tells whether anything is worse, ``failures()`` what.

    Raises:
        BundleError: The folder is not what was exported.
        TrialError: Its engine cannot be built, loaded or run.
    """
    from optimizer.verification.verify import VerifyOrder, verify

    order = VerifyOrder(folder=Path(folder), margin=margin, sessions=sessions, data=None)
    return verify(order, on_step=lambda _: None)


def register(
    folder: str | Path,
    *,
    name: str | None = None,
    mlflow: str | None = None,
    workspace: str | Path = _WORKSPACE,
) -> "Registered":
    """Make an export a version in MLflow's model registry, unless it is one already.

    Args:
        folder: What was exported.
        name: Of the registered model; the space's unless told.
        mlflow: MLflow tracking URI; SQLite in the workspace unless told.
        workspace: Folder that remembers everything.

    Returns:
        The version; ``uri`` is how MLflow's tools name it.

    Raises:
        BundleError: The folder is not what was exported.
        TrackingError: MLflow refuses, or does not answer.
    """
    from optimizer.registering import register, registry_at

    destination = registry_at(mlflow, place_at(Path(workspace), None).workspace)
    return register(Path(folder), destination, name=name)
