"""One of our studies as the dashboard knows it: what its page shows is made once per change.

Nothing of this is written into the study: notes and figures are made when they are looked at, from
what the study holds then. So they are never out of date, cost a search nothing, and are there for
the studies of the past.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.certifying.certificate import Certificate, Certified, certificate_of
from optimizer.certifying.showing import with_certificate
from optimizer.dashboard.notes import note_of_study, note_of_trial
from optimizer.front.figures import figures_of_front
from optimizer.front.front import Front, FrontKeeper
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy

if TYPE_CHECKING:
    from trials.measurement import Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What a study has come to.

    Attributes:
        note: In Markdown.
        figures: (name, JSON of a plotly figure).
    """

    front: Front
    note: str
    figures: tuple[tuple[str, str], ...]


class KnownStudy:
    """One study, looked at again with each :meth:`refresh`. Belongs to one thread at a time."""

    def __init__(self, search: SearchStudy) -> None:
        self._search = search
        self._fronts = FrontKeeper(search.space.objectives, search.space.constraints)
        self._records: dict[int, TrialRecord] = {}
        self._verdicts: dict[int, Quality] = {}
        self._certificate: Certificate | None = None
        self._harvest: Harvest | None = None

    def refresh(self) -> None:
        """Look at what was tried and scored since.

        Raises:
            StorageError: The storage is out of reach.
        """
        self._search.refresh()
        records, verdicts = self._search.records(), self._search.verdicts()
        certificate = certificate_of(self._search)
        # records and verdicts only grow, and what is in them stays as it is
        known = (len(self._records), len(self._verdicts), self._certificate)
        if (len(records), len(verdicts), certificate) != known:
            self._harvest = None
        self._records = {record.number: record for record in records}
        self._verdicts = verdicts
        self._certificate = certificate

    def record(self, number: int) -> TrialRecord | None:
        """Return an ended trial; None while it runs, or where it had no deployment."""
        return self._records.get(number)

    def is_scored(self, number: int) -> bool:
        """Tell whether a trial has a verdict of the report split, which its note then holds."""
        return number in self._verdicts

    def certified(self, number: int) -> Certified | None:
        """Return what the study's certificate says of a trial, which its note then holds."""
        return None if self._certificate is None else self._certificate.of_trial(number)

    def note_of_trial(self, record: TrialRecord, pictures: Sequence[str]) -> str:
        """Make the note of one trial, in Markdown, with the pictures at these addresses."""
        return note_of_trial(
            record,
            self._search.space,
            verdict=self._verdicts.get(record.number),
            certified=self.certified(record.number),
            pictures=pictures,
        )

    def harvest(self) -> Harvest:
        """Return what the study had come to at the last refresh."""
        if self._harvest is None:
            self._harvest = self._reaped()
        return self._harvest

    def _reaped(self) -> Harvest:
        search = self._search
        front = self._fronts.front(tuple(self._records.values()))
        if self._certificate is not None:
            front = with_certificate(front, self._certificate, trials=len(self._records))
        note = note_of_study(
            front,
            search.space,
            name=search.name,
            verdicts=self._verdicts,
            certificate=self._certificate,
            digests=search.digests,
            environment=search.environment,
        )
        title = f"{search.name}: {len(front.members)} of {len(self._records)} trials on the front"
        figures = figures_of_front(front, title)
        return Harvest(
            front=front,
            note=note,
            figures=tuple((name, figure.to_json()) for name, figure in figures.items()),
        )
