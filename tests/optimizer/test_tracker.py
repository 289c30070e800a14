"""What a search leaves in the spool, and what it does not write a second time."""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from search_fakes import FACTS, FormulaRunner, ListeningQuiet, ListeningView, measured, record_of
from tracking_fakes import DEPLOYMENT

from optimizer.certifying.certificate import Certificate, Certified, keep_certificate
from optimizer.front.front import front_of
from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.search.search import Finished, Search
from optimizer.study.opening import open_study
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.tracking.destination import Destination, destination_of
from optimizer.tracking.ledger import Delivered, Ledger
from optimizer.tracking.messages import (
    CertificateGiven,
    FrontFound,
    Message,
    SearchBegan,
    SearchEnded,
    TrialEnded,
    VerdictGiven,
)
from optimizer.tracking.spool import Spool, label_of
from optimizer.tracking.tracker import SpoolingTracker
from optimizer.tracking.trial_files import files_of_trial
from optimizer.workspace import STORE_LIMIT_BYTES, Workspace
from search_spaces.space import SearchSpace
from trials.measurement import Estimate
from trials.outcome import Completed
from trials.store.entries import Entry
from trials.store.store import Store

Made = Callable[[], SpoolingTracker]


@dataclass
class NobodyDelivers:
    """A courier that never comes."""

    says: str = ""
    nudges: int = 0

    def nudge(self) -> None:
        """Count."""
        self.nudges += 1

    def trouble(self) -> str:
        """Say what a test wants."""
        return self.says


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(root=tmp_path / "work")
    workspace.create()
    return workspace


@pytest.fixture
def study(space: SearchSpace, workspace: Workspace) -> SearchStudy:
    url = workspace.storage_url
    study = open_study(open_storage(url, workspace), url, "tiny", space=space, facts=FACTS)
    study.study.sampler, _ = sampler_named(
        SamplerName.RANDOM, study.encoding, seed=0, trials=None, repeats=False
    )
    return study


@pytest.fixture
def destination(workspace: Workspace) -> Destination:
    return destination_of("http://nowhere:5000", workspace)


@pytest.fixture
def made(study: SearchStudy, workspace: Workspace, destination: Destination) -> Made:
    """Make a tracker, as a new session would."""
    return lambda: SpoolingTracker(
        study, destination, workspace=workspace, courier=NobodyDelivers(), note=print
    )


def searched(
    study: SearchStudy, workspace: Workspace, tracker: SpoolingTracker | None, *, trials: int
) -> Finished:
    search = Search(
        study,
        runner=FormulaRunner(),
        workspace=workspace,
        tracker=tracker,
        quiet=ListeningQuiet(),
        view=ListeningView(),
    )
    return search.run(Budget(trials=trials))


def ended(study: SearchStudy, tracker: SpoolingTracker, finished: Finished) -> None:
    tracker.end(finished.front, study.records(), study.verdicts(), killed=finished.interrupted)


def messages(destination: Destination) -> list[Message]:
    spool = Spool(destination.folder)
    return [spool.read(name).envelope.message for name in spool.waiting()]


def kinds(destination: Destination) -> list[str]:
    return [message.kind for message in messages(destination)]


def deliver(destination: Destination, *, result: str = "delivered") -> None:
    """Empty the spool as a courier does, into the ledger."""
    spool, ledger = Spool(destination.folder), Ledger(destination.folder)
    for name in spool.waiting():
        message = spool.read(name).envelope.message
        blocks = isinstance(message, TrialEnded) and message.blocks is not None
        label = name.partition("-")[2]
        ledger.append(Delivered(label=label, result=result, blocks=blocks))  # type: ignore[arg-type]
        spool.remove(name)


def test_search_spools_its_begin_its_trials_and_its_end_in_order(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    tracker = made()

    finished = searched(study, workspace, tracker, trials=3)
    ended(study, tracker, finished)

    verdicts = ["verdict"] * len(finished.front.members)
    assert kinds(destination) == ["search", *["trial"] * 3, *verdicts, "front", "end"]
    assert list(tracker.spooled) == list(Spool(destination.folder).waiting())


def test_certificate_of_the_study_is_told_with_the_end(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    tracker = made()
    finished = searched(study, workspace, tracker, trials=3)
    certified = Certified(
        trial=1,
        probability=0.5,
        sessions=3,
        speeds=(("latency_p99_ms", Estimate(value=2.0, low=1.5, high=None)),),
    )
    keep_certificate(
        study,
        Certificate(
            at_s=1.5, sessions=3, decided=False, trials=3, contended=0.0, candidates=(certified,)
        ),
    )

    ended(study, tracker, finished)

    (told,) = [one for one in messages(destination) if isinstance(one, CertificateGiven)]
    (trial,) = told.trials
    assert (told.search, told.at_ms) == (f"search-{study.identity}", 1500)
    assert told.words == "certified 1970-01-01 in 3 sessions, not decided"
    assert (trial.uid, trial.tags) == (study.uid(1), (("certified", "undecided"),))
    assert dict(trial.metrics) == {
        "certified.probability": 0.5,
        "certified.sessions": 3.0,
        "certified.latency_p99_ms": 2.0,
        "certified.latency_p99_ms.low": 1.5,
    }


def test_trial_goes_with_its_blocks_and_its_point_of_the_curve(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    searched(study, workspace, made(), trials=2)

    _, name, _ = Spool(destination.folder).waiting()
    parcel = Spool(destination.folder).read(name)
    told = parcel.envelope.message
    assert isinstance(told, TrialEnded)
    assert told.point is not None
    assert told.point.search == f"search-{study.identity}"
    assert told.point.value > 0
    path = workspace.blocks(told.uid)
    assert parcel.file("blocks.parquet").read_bytes() == path.read_bytes()
    assert parcel.file("blocks.parquet").stat().st_ino == path.stat().st_ino


def test_curve_that_is_told_as_it_grows_is_the_one_that_is_told_later(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    searched(study, workspace, made(), trials=12)
    other = destination_of("http://other", workspace)

    late = SpoolingTracker(study, other, workspace=workspace, courier=NobodyDelivers(), note=print)
    late.begin(study.records())

    live, later = curve(destination), curve(other)
    assert len(live) == 12
    assert live == pytest.approx(later)


def curve(destination: Destination) -> dict[str, float]:
    trials = [told for told in messages(destination) if isinstance(told, TrialEnded)]
    return {told.uid: told.point.value for told in trials if told.point is not None}


def test_trouble_is_told_once_while_the_search_goes_on(
    study: SearchStudy, workspace: Workspace, destination: Destination
) -> None:
    notes: list[str] = []
    tracker = SpoolingTracker(
        study,
        destination,
        workspace=workspace,
        courier=NobodyDelivers(says="MLflow http://nowhere:5000: Connection refused"),
        note=notes.append,
    )

    searched(study, workspace, tracker, trials=3)

    assert notes == [
        "MLflow http://nowhere:5000: Connection refused; the search goes on, MLflow is told later"
    ]


def test_next_session_tells_no_trial_that_waits_or_was_delivered(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    searched(study, workspace, made(), trials=2)
    deliver(destination)
    searched(study, workspace, made(), trials=4)

    assert made().begin(study.records()) == 0


@pytest.mark.parametrize("result", ["found", "deleted"])
def test_trial_that_mlflow_had_or_that_was_deleted_there_is_not_told_again(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made, *, result: str
) -> None:
    searched(study, workspace, made(), trials=2)
    deliver(destination, result=result)

    assert made().begin(study.records()) == 0


def test_trials_of_a_session_without_mlflow_are_told_by_the_next(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    searched(study, workspace, None, trials=3)

    late = made().begin(study.records())

    assert late == 3
    assert kinds(destination) == ["search", "trial", "trial", "trial"]


def test_trial_that_was_told_without_blocks_is_told_again_where_they_are(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    searched(study, workspace, None, trials=1)
    (record,) = study.records()
    label = f"trial-{record.uid}"
    destination.create()
    Ledger(destination.folder).append(Delivered(label=label, result="delivered", blocks=False))

    late = made().begin(study.records())
    workspace.blocks(record.uid).unlink()
    Spool(destination.folder).remove(Spool(destination.folder).waiting()[-1])

    assert late == 1
    assert made().begin(study.records()) == 0


def test_verdicts_and_engines_are_told_once(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    tracker = made()
    ended(study, tracker, searched(study, workspace, tracker, trials=3))
    deliver(destination)

    again = made()
    ended(study, again, searched(study, workspace, again, trials=3))

    assert kinds(destination) == ["search", "front", "end"]


def test_verdict_on_a_trial_that_was_not_heard_of_is_told_again(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    """Somebody removed the record of the trial, so its verdict found no run to be told of."""
    tracker, spool = made(), Spool(destination.folder)
    ended(study, tracker, searched(study, workspace, tracker, trials=3))
    judged = {one.uid for one in messages(destination) if isinstance(one, VerdictGiven)}
    uid = min(judged)
    (lost,) = (name for name in spool.waiting() if label_of(name) == f"trial-{uid}")
    spool.remove(lost)
    deliver(destination)

    again = made()
    ended(study, again, searched(study, workspace, again, trials=3))

    told = [one for one in messages(destination) if isinstance(one, VerdictGiven | TrialEnded)]
    assert [(one.kind, one.uid) for one in told] == [("trial", uid), ("verdict", uid)]


def test_engine_goes_along_with_the_first_trial_that_measured_it(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    def build(out: Path) -> None:
        out.write_bytes(b"an engine")

    store = Store(workspace.store, limit_bytes=STORE_LIMIT_BYTES)
    entry = store.obtain("engine", {"a": 1}, build).entry
    front = front_of([], study.space.objectives, study.space.constraints)
    tracker = made()
    tracker.begin([])

    for number in range(2):
        tracker.record(record_of(number, measured_by(entry)), front)

    assert kinds(destination) == ["search", "engine", "trial", "trial"]
    parcel = Spool(destination.folder).read(Spool(destination.folder).waiting()[1])
    assert parcel.envelope.message.uid == entry.sha256
    assert parcel.file("engine.json").read_bytes() == b"an engine"


def measured_by(entry: Entry) -> Completed:
    """Measure with an engine of the store."""
    outcome = measured(DEPLOYMENT)
    engine = replace(outcome.engine, engine_key=entry.key, engine_digest=entry.sha256)
    return replace(outcome, engine=engine)


def test_front_and_end_say_what_was_found(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    tracker = made()

    finished = searched(study, workspace, tracker, trials=6)
    ended(study, tracker, finished)

    *_, front, end = messages(destination)
    members = {record.uid for record in finished.front.members}
    assert isinstance(front, FrontFound)
    assert set(front.members) == members
    assert isinstance(end, SearchEnded)
    assert end.status == "FINISHED"
    assert end.files == ("front.png",)
    verdicts = [one.uid for one in messages(destination) if isinstance(one, VerdictGiven)]
    assert set(verdicts) == members


def test_session_that_ends_with_an_error_is_told_as_killed(
    study: SearchStudy, destination: Destination, made: Made
) -> None:
    tracker = made()
    tracker.begin(study.records())

    tracker.break_off()
    tracker.break_off()

    begin, end = messages(destination)
    assert isinstance(begin, SearchBegan)
    assert isinstance(end, SearchEnded)
    assert end.status == "KILLED"
    assert not list((destination.folder / "sessions").iterdir())


def test_session_that_was_killed_is_told_so_by_the_next(
    study: SearchStudy, destination: Destination, made: Made
) -> None:
    made().begin(study.records())
    (session,) = (destination.folder / "sessions").iterdir()
    document = json.loads(session.read_text())
    document["owner"] = json.dumps([socket.gethostname(), "another boot", 1, 0.0])
    session.write_text(json.dumps(document))

    made().begin(study.records())

    _, killed, begin = messages(destination)
    assert isinstance(killed, SearchEnded)
    assert killed.status == "KILLED"
    assert isinstance(begin, SearchBegan)
    assert len(list((destination.folder / "sessions").iterdir())) == 1


def test_session_that_ends_while_another_goes_on_does_not_end_the_search(
    study: SearchStudy, workspace: Workspace, destination: Destination, made: Made
) -> None:
    first, second = made(), made()
    first.begin(study.records())
    second.begin(study.records())

    for tracker in (first, second):
        ended(study, tracker, searched(study, workspace, None, trials=1))

    ends = [one for one in messages(destination) if isinstance(one, SearchEnded)]
    assert [one.status for one in ends] == [None, "FINISHED"]


def test_files_of_a_trial_are_those_that_are_here(workspace: Workspace) -> None:
    record = record_of(0, measured(DEPLOYMENT))

    before = list(files_of_trial(record, workspace))
    workspace.blocks(record.uid).parent.mkdir()
    workspace.blocks(record.uid).write_bytes(b"raw")

    assert before == []
    assert [file.name for file in files_of_trial(record, workspace)] == ["blocks.parquet"]
