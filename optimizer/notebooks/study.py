"""A study: its trials, its front, and what can be made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.errors import UsageError
from optimizer.export.format_name import REFERENCES
from optimizer.front.asking import question_of
from optimizer.front.of_study import front_of_study
from optimizer.front.picking import record_named
from optimizer.notebooks.front import FrontView
from optimizer.notebooks.trial import Trial
from optimizer.study.study import SearchStudy
from optimizer.wiring import Place
from search_spaces.space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd

    from optimizer.notebooks.certificate import CertificateView
    from optimizer.notebooks.comparison import ComparisonView


class Study:
    """A study and where it lies; made by ``search`` and ``open_study``."""

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

    def certify(
        self, *, time_s: float = 600.0, sessions: int = 3, mlflow: str | None = None
    ) -> "CertificateView":
        """Measure the candidates of the front again, in turns, until it is decided who belongs.

        What was found is kept: :meth:`front` tells its probabilities from then on.

        Args:
            time_s: After which no measurement begins, seconds.
            sessions: At least so many, >= 2, those of earlier calls included.
            mlflow: MLflow tracking URI whose credentials are needed; every MLflow that knows the
                study is told, with ``none`` nobody.

        Returns:
            Whether the front is decided, and a table; in a notebook it shows itself.

        Raises:
            StudyError: There are no candidates.
            UsageError: Fewer than two sessions.
            TrialError: A model or data that cannot be used.
        """
        from rich.console import Console

        from optimizer.certifying.certify import CertifyOrder
        from optimizer.certifying.of_study import certify_study
        from optimizer.certifying.sessions import FEWEST_SESSIONS
        from optimizer.notebooks.certificate import CertificateView
        from optimizer.tracking.syncing import tell_certificate

        if sessions < FEWEST_SESSIONS:
            raise UsageError(
                f"sessions={sessions} would show no spread", hint="ask for two or more"
            )
        front, certificate = certify_study(
            self._study,
            self._place,
            CertifyOrder(sessions=sessions, time_s=time_s),
            on_step=lambda _: None,
        )
        console = Console(stderr=True, force_jupyter=False, force_terminal=False)
        tell_certificate(
            self._study, certificate, self._place.workspace, mlflow=mlflow, console=console
        )
        return CertificateView(certificate=certificate, front=front)

    def compare(
        self, a: int | str, b: int | str, *, within: float = 0.02, time_s: float = 90.0
    ) -> "ComparisonView":
        """Compare two trials, measured in turns: is ``b`` faster than ``a``, or equivalent?

        Args:
            a: A trial, the folder of an export or an engine file; likewise ``b``.
            b: See ``a``.
            within: Share of a speed that does not matter.
            time_s: After which what is undecided stays so, seconds.

        Returns:
            Verdicts with ratios b / a, and a table; in a notebook it shows itself; ``is_worse``
            tells whether anything is worse.

        Raises:
            OptimizerError: A name that leads nowhere, or trials that cannot be compared.
            TrialError: An engine that cannot be loaded here.
        """
        from optimizer.comparing.compare import CompareOrder
        from optimizer.comparing.naming import Names, compared
        from optimizer.comparing.side import FileOrder
        from optimizer.notebooks.comparison import ComparisonView
        from optimizer.verification.speed import USUAL_SPEEDS

        found = compared(
            (str(a), str(b)),
            Names(
                place=self._place,
                study=self.name,
                files=FileOrder(backend="ort", batch_size=1, concurrency=1, options=()),
            ),
            CompareOrder(
                metrics=USUAL_SPEEDS,
                margin=within,
                time_s=time_s,
            ),
            stored=False,
            on_step=lambda _: None,
        )
        return ComparisonView(comparison=found)

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
