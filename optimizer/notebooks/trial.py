"""One trial: its numbers and its raw latencies, as frames."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optimizer.errors import StudyError
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.wiring import Place
from search_spaces.deployment import Scalar
from trials.outcome import Completed

if TYPE_CHECKING:
    import pandas as pd

    from optimizer.notebooks.saturation import SaturationView


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

    def saturate(self, slo: str | Sequence[str] = (), *, time_s: float = 60.0) -> "SaturationView":
        """Load the deployment more and more, and find how much it can take.

        What was found is kept with the trial, and replaces an earlier finding.

        Args:
            slo: Latencies that are promised, such as ``latency_p99_ms <= 10``; the space's bounds
                unless told.
            time_s: About how long it may take, seconds.

        Returns:
            The rate that keeps the promise, tables and a picture; in a notebook it shows itself.

        Raises:
            ExportError: The trial was not measured.
            UsageError: Bounds that cannot be meant.
            TrialError: The deployment cannot be measured tonight, or no longer at all.
        """
        from optimizer.notebooks.saturation import SaturationView
        from optimizer.saturation.saturate import SaturateOrder, saturate

        bounds = (slo,) if isinstance(slo, str) else tuple(slo)
        order = SaturateOrder(slo=bounds, time_s=time_s)
        found = saturate(self._record, self._study, self._place, order, on_step=lambda _: None)
        return SaturationView(saturation=found)

    def _measured(self) -> Completed:
        outcome = self._record.outcome
        if not isinstance(outcome, Completed):
            raise StudyError(
                f"trial {self.number} is {outcome.state}: {outcome.reason}",
                hint="Study.trials() tells which trials are completed",
            )
        return outcome
