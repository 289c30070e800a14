"""The interface for notebooks: the same studies and numbers as on the command line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from real_spaces import write_space

from optimizer.api import load_space, open_study, register, search, verify
from optimizer.errors import StudyError, UsageError
from optimizer.notebooks.html import html_of
from optimizer.notebooks.study import Study
from search_spaces.errors import SpaceError


@pytest.fixture(scope="module")
def study(fake_workspace: Path) -> Study:
    return open_study(workspace=fake_workspace)


def test_search_goes_on_with_its_study(tmp_path: Path) -> None:
    first = search("fake", trials=2, sampler="random", workspace=tmp_path / "w", mlflow="none")
    again = search("fake", trials=3, sampler="random", workspace=tmp_path / "w", mlflow="none")

    assert first.name == again.name == "fake"
    assert len(again.trials()) >= 3
    assert list(again.trials().index[:2]) == list(first.trials().index[:2])


def test_trials_are_a_frame_with_limits_beside_values(study: Study) -> None:
    frame = study.trials()

    measured = frame[frame["state"] == "completed"]
    assert frame.index.name == "trial"
    assert set(frame["state"]) == {"completed", "infeasible", "failed"}
    assert (measured["latency_p50_ms.low"] <= measured["latency_p50_ms"]).all()
    assert (measured["latency_p50_ms.high"] >= measured["latency_p50_ms"]).all()


def test_front_is_a_frame_of_members_and_ties(study: Study) -> None:
    view = study.front()

    frame = view.table()
    assert view.knee in frame.index[frame["member"]]
    assert frame["probability"].between(0, 1).all()
    assert frame["latency_p99_ms"].is_monotonic_increasing


def test_front_of_other_objectives_under_a_bound(study: Study) -> None:
    frame = study.front(
        objectives=["latency_p50_ms", "engine_size_mb"], where=["batch_size <= 2"]
    ).table()

    assert (frame["batch_size"] <= 2).all()
    with pytest.raises(UsageError, match="not measured"):
        study.front(objectives=["beauty"])


def test_front_of_nothing_is_an_empty_frame(study: Study) -> None:
    view = study.front(where=["latency_p99_ms <= 0.000001"])

    assert view.table().empty
    assert view.knee is None


def test_front_shows_itself_with_its_table_and_what_is_to_be_said_of_it(study: Study) -> None:
    shown = study.front()._repr_html_()

    assert shown.startswith(f"<p><b>fake: {len(study.trials())} trials</b></p>")
    assert "<table" in shown
    assert "hypervolume" in shown


def test_what_users_named_is_escaped_where_results_show_themselves() -> None:
    shown = html_of("a <b>", [pd.DataFrame({"name": ["<script>"]})], ["x & y"])

    assert "a &lt;b&gt;" in shown
    assert "&lt;script&gt;" in shown
    assert "<p>x &amp; y</p>" in shown


def test_front_is_drawn_still_and_interactive(study: Study) -> None:
    view = study.front()

    assert view.plot().axes[0].get_xscale() == "log"
    assert view.figure().layout.xaxis.type == "log"
    assert view.title == f"fake: {len(study.trials())} trials"


def test_front_is_certified_compared_and_saturated(tmp_path: Path) -> None:
    made = search("fake", trials=6, sampler="random", workspace=tmp_path / "w", mlflow="none")

    with pytest.raises(UsageError, match="no spread"):
        made.certify(sessions=1)
    certificate = made.certify(sessions=2, time_s=60)
    knee = made.trial("knee")
    saturation = knee.saturate("latency_p99_ms <= 1000", time_s=5)

    assert knee.number in certificate.table().index
    assert made.front().front.certified
    assert saturation.trial == knee.number
    assert saturation.kept_rps in saturation.rates().index
    assert list(saturation.concurrencies().index) == sorted(saturation.concurrencies().index)
    assert "certified 20" in certificate._repr_html_()
    assert certificate.table()["probability"].between(0, 1).all()
    assert "requests/s" in saturation._repr_html_()
    assert len(saturation.plot().axes) >= 2


def test_trials_of_a_notebook_are_compared_in_turns(tmp_path: Path) -> None:
    made = search(
        write_space(tmp_path), trials=2, sampler="random", workspace=tmp_path, mlflow="none"
    )

    found = made.compare(0, 0, within=0.5, time_s=20)

    assert not found.is_worse
    assert "latency_p99_ms" in found.table().index
    assert found.table()["change.low"].to_dict()["latency_p99_ms"] > 0
    assert found._repr_html_().startswith(f"<p><b>{found.verdict}</b></p>")


def test_trial_says_everything_of_itself(study: Study) -> None:
    trial = study.trial("knee")

    metrics = trial.metrics()
    assert (trial.state, trial.reason) == ("completed", None)
    assert trial.deployment["batch_size"] in (1, 2, 4, 8, 16, 32)
    assert trial.environment["cpu_model"]
    assert list(metrics.columns) == ["value", "low", "high"]
    assert "report.accuracy" in metrics.index


def test_raw_latencies_give_the_printed_percentile(study: Study) -> None:
    trial = study.trial("knee")

    latencies_ms = trial.requests()["latency_ms"].to_numpy()

    printed = trial.metrics().loc["latency_p50_ms", "value"]
    assert printed == pytest.approx(np.quantile(latencies_ms, 0.5, method="inverted_cdf"))


def test_trial_that_was_not_measured_says_why(study: Study) -> None:
    frame = study.trials()
    number = int(frame.index[frame["state"] == "infeasible"][0])

    trial = study.trial(number)

    assert trial.reason
    with pytest.raises(StudyError, match=f"trial {number} is infeasible"):
        trial.metrics()


def test_raw_latencies_of_another_machine_are_not_to_be_had(
    fake_workspace: Path, tmp_path: Path
) -> None:
    storage = f"sqlite:///{fake_workspace / 'studies.db'}"
    elsewhere = open_study(workspace=tmp_path, storage=storage)

    with pytest.raises(StudyError, match="raw blocks"):
        elsewhere.trial("knee").requests()


def test_space_is_loaded_by_name_or_path(tmp_path: Path) -> None:
    assert load_space("fake").name == "fake"
    with pytest.raises(SpaceError):
        load_space(tmp_path / "none.yaml")


def test_deployment_is_exported_verified_and_registered(tmp_path: Path) -> None:
    place = tmp_path / "trifront"
    study = search(write_space(tmp_path), trials=1, workspace=place, mlflow="none")

    folder = study.export(0, to=tmp_path / "deploy", references=8, by="Ada")

    assert folder == tmp_path / "deploy"
    assert verify(folder, sessions=0).passed
    assert register(folder, name="digits", workspace=place).uri == "models:/digits/1"
