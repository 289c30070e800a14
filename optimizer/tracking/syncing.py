"""Deliver what waits in the spools, whoever left it there, and say what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.certifying.certificate import Certificate
from optimizer.errors import TrackingError, UsageError
from optimizer.front.front import front_of
from optimizer.study.study import SearchStudy
from optimizer.tracking.certificate_content import content_of_certificate
from optimizer.tracking.courier import Courier, WaitLimits
from optimizer.tracking.destination import (
    NO_MLFLOW,
    Destination,
    check_uri,
    destination_folders,
    destination_in,
    destination_of,
)
from optimizer.tracking.gate import Gate
from optimizer.tracking.ledger import Ledger
from optimizer.tracking.messages import Envelope
from optimizer.tracking.search_content import experiment_of, facts_of_search
from optimizer.tracking.sessions import Sessions
from optimizer.tracking.spool import Spool, label_of
from optimizer.tracking.telling import waited_for, what_is_left
from optimizer.tracking.tracker import SpoolingTracker, tell_of_killed
from optimizer.workspace import Workspace
from trials.store.locks import is_held

if TYPE_CHECKING:
    from rich.console import Console

_LIMITS = WaitLimits(troubled_s=2.0)  # whoever asks by hand sees the trouble and can ask again


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """What came of one destination.

    Attributes:
        mlflow: Its URI without secrets, or its folder where that cannot be read.
        delivered: Records that it was told.
        already_there: Records that it had, or whose run was deleted there.
        waiting: Records that still wait.
        refused: (record, why) of those that were refused by themselves.
        problem: Why what waits could not be told; empty where nothing waits.
        hint: The mend.
    """

    mlflow: str
    delivered: int = 0
    already_there: int = 0
    waiting: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    problem: str = ""
    hint: str = ""


class _Later:
    """A courier that is not called yet: first all is spooled, then all is delivered."""

    def nudge(self) -> None:
        """Wait."""

    def trouble(self) -> str:
        """Know of none."""
        return ""


class Syncing:
    """Delivers what waits in one workspace. Used by the main thread."""

    def __init__(self, workspace: Workspace, console: "Console") -> None:
        """Work in a workspace.

        Args:
            workspace: Where the spools are.
            console: Where the wait is shown.
        """
        self._workspace = workspace
        self._console = console
        self._gate = Gate(workspace.spool)

    def all(self, usual: Destination) -> tuple[Synced, ...]:
        """Deliver what waits for every destination.

        Args:
            usual: Where searches of this user go; it is told with its credentials.

        Raises:
            WorkspaceError: The disk refuses.
        """
        synced = []
        for folder in destination_folders(self._workspace):
            try:
                found = destination_in(folder, self._workspace)
                synced.append(self.one(usual if usual.folder == found.folder else found))
            except TrackingError as error:
                waiting = len(Spool(folder).waiting())
                synced.append(
                    Synced(
                        mlflow=str(folder), waiting=waiting, problem=str(error), hint=error.hint
                    )
                )
        return tuple(synced)

    def one(self, destination: Destination) -> Synced:
        """Deliver what waits for one destination.

        Raises:
            WorkspaceError: The disk refuses.
        """
        spool = Spool(destination.folder)
        tell_of_killed(Sessions(destination.folder), spool)
        names = spool.waiting()
        if not names:
            return Synced(mlflow=destination.name)
        with Courier(destination, spool=self._workspace.spool, gate=self._gate) as courier:
            courier.nudge()
            left = waited_for(courier, names, limits=_LIMITS, console=self._console)
        gone = [label_of(name) for name in set(names) - set(left.waiting)]
        ledger = Ledger(destination.folder).read()
        told = sum(label in ledger and ledger[label].result == "delivered" for label in gone)
        return Synced(
            mlflow=destination.name,
            delivered=told,
            already_there=len(gone) - told,
            waiting=len(left.waiting),
            refused=tuple(pair for pair in left.status.refused if pair[0] in left.waiting),
            problem=what_is_left(left, destination.name) if left.waiting else "",
            hint=left.status.hint if left.waiting else "",
        )

    def publish(self, study: SearchStudy, destination: Destination) -> None:
        """Spool all of a study that a destination has not been told, searched by whomever.

        Raises:
            StorageError: The study is out of reach.
            WorkspaceError: The disk refuses.
        """
        records, space = study.records(), study.space
        tracker = SpoolingTracker(
            study,
            destination,
            workspace=self._workspace,
            courier=_Later(),
            note=self._console.print,
        )
        tracker.begin(records)
        front = front_of(records, space.objectives, space.constraints)
        tracker.end(front, records, study.verdicts(), killed=False)

    def certified(
        self, study: SearchStudy, certificate: Certificate, usual: Destination
    ) -> tuple[Synced, ...]:
        """Tell a certificate to every MLflow that has heard of its study, and deliver it there.

        Args:
            study: That was certified.
            certificate: Of its front.
            usual: Where searches of this user go; it is told with its credentials.

        Raises:
            WorkspaceError: The disk refuses.
        """
        facts = facts_of_search(study)
        envelope = Envelope(
            experiment=experiment_of(facts), message=content_of_certificate(study, certificate)
        )
        synced = []
        for found in self._readable():
            spool = Spool(found.folder)
            if f"search-{facts.uid}" in spool.labels() | set(Ledger(found.folder).read()):
                spool.put(envelope)
                synced.append(self.one(usual if usual.folder == found.folder else found))
        return tuple(synced)

    def readdress(self, destination: Destination, *, old: str | None) -> None:
        """Take over for a destination what waits for another, which has moved or is no more.

        Args:
            destination: Where it is to go.
            old: URI of the other; None for the only one that anything waits for.

        Raises:
            UsageError: There is no telling which is meant, or it is being delivered just now.
            WorkspaceError: The disk refuses.
        """
        if old is not None:
            self._take_over(destination_of(old, self._workspace), destination)
            return
        if Spool(destination.folder).waiting():
            return
        found = [
            other
            for other in self._readable()
            if other.folder != destination.folder
            and not other.own
            and Spool(other.folder).waiting()
        ]
        if len(found) > 1:
            names = " and ".join(other.name for other in found)
            raise UsageError(
                f"records wait for {names}, none for {destination.name}",
                hint=f"say whose are meant: --from {found[0].name}",
            )
        for other in found:
            self._take_over(other, destination)

    def _readable(self) -> Sequence[Destination]:
        found = []
        for folder in destination_folders(self._workspace):
            try:
                found.append(destination_in(folder, self._workspace))
            except TrackingError:
                continue  # nobody can mean it by a URI
        return found

    def _take_over(self, old: Destination, new: Destination) -> None:
        if old.folder == new.folder:
            return
        if is_held(old.folder / "delivering"):
            raise UsageError(
                f"records for {old.name} are being delivered just now",
                hint="end the search that delivers them first",
            )
        new.create()
        taken = Spool(new.folder).adopt(Spool(old.folder))
        self._console.print(
            f"{taken} records for {old.name} go to {new.name} now",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def tell_certificate(
    study: SearchStudy,
    certificate: Certificate,
    workspace: Workspace,
    *,
    mlflow: str | None,
    console: "Console",
) -> None:
    """Tell a certificate to every MLflow that has heard of its study; say what must wait.

    Args:
        study: That was certified.
        certificate: Of its front.
        workspace: Where the records of the study's searches lie.
        mlflow: Tracking URI with the credentials of the user; ``none`` tells nobody.
        console: Where the wait is shown.

    Raises:
        UsageError: A URI that means nothing.
        WorkspaceError: The disk refuses.
    """
    if mlflow == NO_MLFLOW:
        return
    check_uri(mlflow)
    usual = destination_of(mlflow, workspace)
    for synced in Syncing(workspace, console).certified(study, certificate, usual):
        if synced.waiting:
            console.print(
                f"{synced.problem}; `trifront sync` delivers them",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
