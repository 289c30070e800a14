"""Certifying a front: what more sessions tell, what is kept, and what a kill leaves."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from search_fakes import FormulaRunner, completed, failed, measured, scored, searched
from tracking_fakes import a_free_port
from typer.testing import CliRunner

from optimizer.certifying.certificate import Certificate, certificate_of, remeasured_of
from optimizer.certifying.certify import CertifyOrder, certify
from optimizer.certifying.sessions import speeds_of, spreads
from optimizer.certifying.showing import words_of
from optimizer.cli import app
from optimizer.errors import StudyError
from optimizer.front.front import Front
from optimizer.front.of_study import front_of_study
from optimizer.study.study import SearchStudy
from optimizer.tracking.certificate_content import content_of_certificate
from optimizer.tracking.destination import destination_of
from optimizer.tracking.messages import Envelope
from optimizer.tracking.search_content import content_of_begin, experiment_of, facts_of_search
from optimizer.tracking.spool import Spool
from optimizer.tracking.syncing import tell_certificate
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment
from search_spaces.space import SearchSpace
from trials.outcome import Outcome

RUNNER = CliRunner()


@dataclass
class SessionRunner(FormulaRunner):
    """Answers by a formula that changes by session; counts the processes that it would start."""

    closed: int = 0
    dies_after: int | None = None

    def run(self, deployment: Deployment, *, on_phase: Callable[[str], None]) -> Outcome:
        """Answer, or die."""
        if self.dies_after is not None and len(self.ran) >= self.dies_after:
            raise KeyboardInterrupt
        return super().run(deployment, on_phase=on_phase)

    def close(self) -> None:
        """Count it."""
        self.closed += 1


@dataclass
class Steps:
    """Remembers what was said."""

    said: list[str] = field(default_factory=list)

    def __call__(self, step: str) -> None:
        self.said.append(step)


def order(*, sessions: int = 3, seconds: float = 1e9) -> CertifyOrder:
    """Ask for sessions; a second passes at each look at the clock."""
    ticks: Iterator[int] = count()
    return CertifyOrder(sessions=sessions, time_s=seconds, clock=lambda: float(next(ticks)))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path / "work")


@pytest.fixture
def study(workspace: Workspace, space: SearchSpace) -> SearchStudy:
    return searched(workspace, space, trials=10)


@pytest.fixture
def front(study: SearchStudy, workspace: Workspace) -> Front:
    return front_of_study(study, workspace)


def test_front_of_an_exact_machine_is_decided_after_the_wanted_sessions(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    runner = SessionRunner()

    found = certify(study, front, runner, workspace, order=order(), on_step=Steps())

    assert (found.sessions, found.decided, runner.closed) == (3, True, 3)
    members = {record.number for record in front.members}
    assert {one.trial for one in found.candidates if one.probability == 1.0} == members
    assert len(runner.ran) == 3 * len(front.candidates)


def test_what_rests_on_scores_ends_it_because_sessions_cannot_tell(
    workspace: Workspace, space: SearchSpace
) -> None:
    """Two engines are as fast as each other, and their accuracies overlap."""
    study = searched(workspace, space, trials=12, answer=alike)
    front = front_of_study(study, workspace)

    found = certify(
        study, front, SessionRunner(answer=alike), workspace, order=order(), on_step=Steps()
    )

    assert (found.sessions, found.decided) == (3, False)


def test_each_session_has_an_order_of_its_own(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    runner = SessionRunner()

    certify(study, front, runner, workspace, order=order(), on_step=Steps())

    size = len(front.candidates)
    orders = [tuple(map(str, runner.ran[at : at + size])) for at in range(0, 3 * size, size)]
    assert len(set(orders)) == 3
    assert len({frozenset(one) for one in orders}) == 1


def test_front_shows_the_certificate_from_then_on(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    certify(study, front, SessionRunner(), workspace, order=order(), on_step=Steps())

    again = front_of_study(study, workspace)

    assert front.certified is None
    assert again.certified is not None
    assert "in 3 sessions, decided" in again.certified
    assert all(one.probability in (0.0, 1.0) for one in again.candidates)


def test_kill_loses_the_measurement_that_was_running_and_no_other(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    with pytest.raises(KeyboardInterrupt):
        certify(
            study, front, SessionRunner(dies_after=4), workspace, order=order(), on_step=Steps()
        )
    kept = len(remeasured_of(study))
    runner = SessionRunner()

    certify(study, front, runner, workspace, order=order(), on_step=Steps())

    assert kept == 4
    assert len(runner.ran) == 3 * len(front.candidates) - 4
    assert certificate_of(study) is not None


def test_raw_blocks_of_each_session_are_kept(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    certify(study, front, SessionRunner(), workspace, order=order(), on_step=Steps())

    uid = front.candidates[0].record.uid
    assert all(workspace.blocks(f"{uid}-s{session:02d}").is_file() for session in range(3))


def test_time_that_is_over_leaves_an_undecided_certificate(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    """Time for two sessions and no more: every look at the clock takes a second."""
    enough = 2 * len(front.candidates) + 1

    found = certify(
        study, front, SessionRunner(), workspace, order=order(seconds=enough), on_step=Steps()
    )

    assert found.sessions == 2
    assert {one.sessions for one in found.candidates} == {2}


def test_too_little_time_for_two_sessions_is_an_error_and_loses_nothing(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    with pytest.raises(StudyError, match="in two sessions"):
        certify(study, front, SessionRunner(), workspace, order=order(seconds=3), on_step=Steps())

    assert certificate_of(study) is None
    assert remeasured_of(study)


def test_candidate_that_breaks_tonight_is_named_and_left_out(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    broken, steps = front.candidates[0].record, Steps()
    runner = SessionRunner(
        answer=lambda one: failed(one) if one == broken.outcome.deployment else measured(one)
    )

    found = certify(study, front, runner, workspace, order=order(), on_step=steps)

    assert broken.number not in found.probabilities()
    assert any(f"trial {broken.number} was not measured" in step for step in steps.said)


def alike(deployment: Deployment) -> Outcome:
    """Answer with one speed for all, and accuracies that 100 samples hardly tell apart."""
    exact = completed(deployment, latency_ms=1.0, sps=1000.0, accuracy=0.9)
    return scored(exact, np.arange(100) < (90 if deployment.variant == "small" else 91))


def noisy(seed: int) -> Callable[[Deployment], Outcome]:
    """Answer with a speed that is 20 % off from session to session."""
    random = np.random.default_rng(seed)

    def answer(deployment: Deployment) -> Outcome:
        exact = measured(deployment)
        factor = float(np.exp(0.2 * random.standard_normal()))
        return completed(
            deployment,
            latency_ms=exact.metric("latency_p99_ms").value * factor,
            sps=exact.metric("throughput_sps").value / factor,
            accuracy=exact.metric("accuracy").value,
        )

    return answer


def test_spread_between_sessions_is_in_the_intervals(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    """Each measurement alone claims ±1 %; sessions differ by 20 %."""
    runner = SessionRunner(answer=noisy(1))

    found = certify(study, front, runner, workspace, order=order(), on_step=Steps())

    p99 = [dict(one.speeds)["latency_p99_ms"] for one in found.candidates]
    assert all(one.high is not None and one.high / one.value > 1.05 for one in p99)


def test_intervals_over_sessions_cover_the_truth_for_like_and_unlike_candidates() -> None:
    """Eight candidates, three sessions; the last one is three times as noisy as the others."""
    random = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        noise = {trial: 0.05 if trial < 7 else 0.15 for trial in range(8)}
        values = {t: list(np.exp(s * random.standard_normal(3))) for t, s in noise.items()}
        estimates = {trial: one.estimate() for trial, one in spreads(values).items()}
        covered.append([(e.low or 0) <= 1 <= (e.high or 0) for e in estimates.values()])

    alike, unlike = np.mean([one[:7] for one in covered]), np.mean([one[7] for one in covered])
    assert alike >= 0.95
    assert unlike >= 0.90


def test_one_session_has_no_spread() -> None:
    assert spreads({1: [2.0], 2: [3.0]}) == {}


def test_certificate_says_what_came_later() -> None:
    certificate = Certificate(
        at_s=0.0, sessions=3, decided=False, trials=10, contended=0.0, candidates=()
    )

    said = words_of(certificate, trials=12)

    assert said == "certified 1970-01-01 in 3 sessions, not decided, before the last 2 trials"


def test_command_certifies_a_real_study_and_front_shows_it(tmp_path: Path) -> None:
    place = ("-w", str(tmp_path / "work"))
    search = ("search", "fake", "--trials", "6", "--sampler", "random", "--mlflow", "none")
    assert RUNNER.invoke(app, [*search, *place]).exit_code == 0

    ran = RUNNER.invoke(app, ["certify", "--sessions", "2", "--time", "20s", *place])
    front = RUNNER.invoke(app, ["front", "--json", *place])

    assert ran.exit_code == 0, ran.output
    assert "certified" in ran.stdout
    assert json.loads(front.stdout)["certified"].startswith("certified 20")
    assert not list((tmp_path / "work" / "spool").glob("*/waiting"))  # no MLflow knows the study


def test_every_mlflow_that_knows_the_study_is_told_and_one_that_is_down_later(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    knows, knows_not = (
        destination_of(f"http://127.0.0.1:{a_free_port()}", workspace) for _ in "ab"
    )
    facts = facts_of_search(study)
    begun = Envelope(experiment=experiment_of(facts), message=content_of_begin(facts, now_s=0.0))
    for destination in (knows, knows_not):
        destination.create()
    Spool(knows.folder).put(begun)
    certificate = certify(study, front, SessionRunner(), workspace, order=order(), on_step=Steps())
    said = Console(file=StringIO(), width=1000)

    tell_certificate(study, certificate, workspace, mlflow=None, console=said)

    assert isinstance(said.file, StringIO)
    assert "`trifront sync` delivers them" in said.file.getvalue()
    assert Spool(knows_not.folder).waiting() == ()
    told = Spool(knows.folder).read(Spool(knows.folder).waiting()[-1]).envelope.message
    assert told == content_of_certificate(study, certificate)


def test_nobody_is_told_by_whoever_wants_no_mlflow(
    study: SearchStudy, front: Front, workspace: Workspace
) -> None:
    known = destination_of("http://127.0.0.1:1", workspace)
    facts = facts_of_search(study)
    known.create()
    Spool(known.folder).put(
        Envelope(experiment=experiment_of(facts), message=content_of_begin(facts, now_s=0.0))
    )
    certificate = certify(study, front, SessionRunner(), workspace, order=order(), on_step=Steps())

    tell_certificate(
        study, certificate, workspace, mlflow="none", console=Console(file=StringIO())
    )

    assert len(Spool(known.folder).waiting()) == 1


def test_empty_front_has_nothing_to_certify(workspace: Workspace, space: SearchSpace) -> None:
    study = searched(workspace, space, trials=3, answer=failed)
    front = front_of_study(study, workspace)

    with pytest.raises(StudyError, match="nothing to certify"):
        certify(study, front, SessionRunner(), workspace, order=order(), on_step=Steps())


def test_speeds_of_a_candidate_are_drawn_as_they_move_together() -> None:
    """One request at a time: throughput is the other side of latency, in each session."""
    latencies = {0: [1.0, 1.02, 0.99], 1: [2.0, 2.03, 2.01]}
    rates = {trial: [1 / one for one in each] for trial, each in latencies.items()}

    drawn = speeds_of({"latency_p50_ms": latencies, "throughput_sps": rates}).drawn(
        0, "seed", draws=500
    )

    products = drawn["latency_p50_ms"] * drawn["throughput_sps"]
    np.testing.assert_allclose(products, products[0], rtol=1e-6)


def test_speeds_that_have_nothing_to_do_with_each_other_are_drawn_so() -> None:
    random = np.random.default_rng(0)
    values = {
        name: {trial: list(np.exp(random.normal(0, 0.1, 6))) for trial in range(40)}
        for name in ("latency_p50_ms", "throughput_sps")
    }

    drawn = speeds_of(values).drawn(0, "seed", draws=4000)

    latency, rate = (np.log(one) for one in drawn.values())
    assert abs(np.corrcoef(latency, rate)[0, 1]) < 0.2
