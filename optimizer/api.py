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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.errors import StudyError
from optimizer.export.format_name import REFERENCES
from optimizer.front.asking import question_of
from optimizer.front.front import Candidate, Front
from optimizer.front.of_study import front_of_study
from optimizer.front.picking import record_named
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.verification.defaults import MARGIN, SESSIONS
from optimizer.wiring import Place, place_at, study_at
from search_spaces.catalog import space_path
from search_spaces.deployment import Scalar
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace
from trials.outcome import Completed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as InteractiveFigure

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
) -> "Study":
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
    )
    place = place_at(Path(workspace), storage)
    with searched(order, place, Console(stderr=True)) as (_, found):
        return Study(found, place)


def open_study(
    name: str | None = None,
    *,
    workspace: str | Path = _WORKSPACE,
    storage: str | None = None,
) -> "Study":
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


class Study:
    """A study and where it lies; made by :func:`search` and :func:`open_study`."""

    def __init__(self, study: SearchStudy, place: Place) -> None:
        self._study = study
        self._place = place

    def __repr__(self) -> str:
        return f"<Study '{self.name}': {len(self._study.records())} trials>"

    @property
    def name(self) -> str:
        """The study's name."""
        return self._study.name

    @property
    def space(self) -> SearchSpace:
        """The space as it was when the study was made."""
        return self._study.space

    def trials(self) -> "pd.DataFrame":
        """Return every trial: axes, state, and each metric with ``.low`` and ``.high``.

        Returns:
            One row a trial, indexed by its number; NaN where a limit is not known.
        """
        import pandas as pd

        from optimizer.front.data import rows_of_records

        frame = pd.DataFrame(rows_of_records(self._study.records()))
        return frame if frame.empty else frame.set_index("trial")

    def trial(self, name: int | str) -> "Trial":
        """Return one trial by its number, as ``knee``, or as ``best:`` and a metric.

        Raises:
            StudyError: There is no such trial.
            UsageError: Not a name of a trial.
        """
        return Trial(record_named(str(name), self._study), self._study, self._place)

    def front(self, *, objectives: Sequence[str] = (), where: Sequence[str] = ()) -> "FrontView":
        """Compute the front, with the probability of each candidate that it belongs there.

        Args:
            objectives: Other metrics to trade off than the study's.
            where: Bounds such as ``latency_p99_ms <= 10``, conditions on axes such as
                ``precision == 'int8'``.

        Raises:
            UsageError: A metric that was not measured, or a condition that cannot be meant.
        """
        records = self._study.records()
        question = question_of(self.space, records, objectives=objectives, where=where)
        return FrontView(
            front=front_of_study(self._study, self._place.workspace, question),
            title=f"{self.name}: {len(records)} trials",
        )

    def export(
        self,
        trial: int | str,
        *,
        to: str | Path,
        form: str = "bundle",
        references: int = REFERENCES,
        by: str | None = None,
    ) -> Path:
        """Export a measured trial into a new folder, whole or not at all, and return its path.

        Args:
            trial: Its number, ``knee``, or ``best:`` and a metric.
            to: The folder.
            form: ``bundle``, ``triton`` or ``onnx``.
            references: Labelled samples to export with the engine's answers.
            by: Who exports, for the manifest; the login name unless told.

        Raises:
            ExportError: The trial was not measured, or the folder is in use.
            TrialError: Its engine cannot be built, loaded or run.
            ValueError: There is no such format.
        """
        from optimizer.export.format_name import FormatName
        from optimizer.exporting import ExportOrder, export_trial

        order = ExportOrder(
            trial=str(trial),
            to=Path(to),
            form=FormatName(form),
            references=references,
            by=by,
        )
        return export_trial(order, self._study, self._place).exported.folder

    def report(self, to: str | Path) -> Path:
        """Write the study as one HTML file, and return its path.

        Raises:
            WorkspaceError: It cannot be written.
        """
        from optimizer.report.page import html_of_study
        from optimizer.workspace import write_atomically

        question = question_of(self.space, self._study.records())
        page = html_of_study(self._study, self._place.workspace, question)
        write_atomically(Path(to), page.encode())
        return Path(to)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontView:
    """A front to look at.

    Attributes:
        front: The front itself.
        title: Stands above its pictures.
    """

    front: Front
    title: str

    def table(self) -> "pd.DataFrame":
        """Return members and ties: standing, axes, and each metric with ``.low`` and ``.high``.

        Returns:
            One row a candidate, indexed by trial number, in order of the first objective.
        """
        import pandas as pd

        rows = [_row(one) for one in self.front.candidates]
        return pd.DataFrame(rows, columns=None if rows else ["trial"]).set_index("trial")

    @property
    def knee(self) -> int | None:
        """Number of the trial at the knee; None on an empty front."""
        return None if self.front.knee is None else self.front.knee.number

    def plot(self) -> "Figure":
        """Draw the front with matplotlib.

        Raises:
            UsageError: Fewer than two objectives.
        """
        from optimizer.front.plot import figure_of_front

        return figure_of_front(self.front, self.title)

    def figure(self) -> "InteractiveFigure":
        """Draw the front with plotly; in a notebook it shows itself.

        Raises:
            ValueError: Fewer than two objectives.
        """
        from optimizer.front.figures import plane_of_front

        return plane_of_front(self.front, self.title)


class Trial:
    """One ended trial; made by :meth:`Study.trial`."""

    def __init__(self, record: TrialRecord, study: SearchStudy, place: Place) -> None:
        self._record = record
        self._study = study
        self._place = place

    def __repr__(self) -> str:
        return f"<Trial {self.number}: {self._record.outcome.deployment}, {self.state}>"

    @property
    def number(self) -> int:
        """Its number in the study."""
        return self._record.number

    @property
    def state(self) -> str:
        """``completed``, ``infeasible`` or ``failed``."""
        return self._record.outcome.state

    @property
    def reason(self) -> str | None:
        """Why it was not measured; None where it was."""
        outcome = self._record.outcome
        return None if isinstance(outcome, Completed) else outcome.reason

    @property
    def deployment(self) -> dict[str, Scalar]:
        """Its value on each axis."""
        return dict(self._record.outcome.deployment.axes())

    @property
    def environment(self) -> dict[str, str]:
        """Where and with what it was measured."""
        return dict(self._record.outcome.environment.facts)

    def metrics(self) -> "pd.DataFrame":
        """Return every metric: columns ``value``, ``low``, ``high``, indexed by name.

        NaN where a limit is not known. Scores on the report split are named ``report.<score>``.

        Raises:
            StudyError: The trial was not measured.
        """
        import pandas as pd

        outcome = self._measured()
        found = outcome.metrics()
        verdict = self._study.verdicts().get(self.number)
        if verdict is not None:
            found |= {f"report.{name}": estimate for name, estimate in verdict.scores}
        rows = {name: (one.value, one.low, one.high) for name, one in found.items()}
        columns = ["value", "low", "high"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)

    def requests(self) -> "pd.DataFrame":
        """Return the raw latencies: columns ``block`` and ``latency_ms``, a row a request.

        Raises:
            StudyError: The trial was not measured, or its raw blocks lie on another machine.
        """
        import pandas as pd

        from optimizer.front.of_study import blocks_in

        self._measured()
        blocks = blocks_in(self._place.workspace)(self._record.uid)
        if blocks is None:
            raise StudyError(
                f"the raw blocks of trial {self.number} are not in {self._place.workspace.root}",
                hint="open the study in the workspace of the machine that measured it",
            )
        return pd.DataFrame(
            [
                (number, latency_s * 1e3)
                for number, block in enumerate(blocks)
                for latency_s in block.latencies_s
            ],
            columns=["block", "latency_ms"],
        )

    def _measured(self) -> Completed:
        outcome = self._record.outcome
        if not isinstance(outcome, Completed):
            raise StudyError(
                f"trial {self.number} is {outcome.state}: {outcome.reason}",
                hint="Study.trials() tells which trials are completed",
            )
        return outcome


def _row(one: Candidate) -> dict[str, object]:
    from optimizer.front.data import rows_of_records

    standing: dict[str, object] = {
        "member": one.is_member,
        "probability": one.probability,
        "tied_with": list(one.tied_with),
        "bounds": one.bounds.value,
    }
    (row,) = rows_of_records([one.record])
    return {"trial": row.pop("trial"), **standing, **row}
