"""A search for energy, on the made-up GPU, through everything that shows a metric."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from real_spaces import write_space
from search_fakes import SPACE

from optimizer.api import load_space, search
from optimizer.dashboard.notes import note_of_trial
from optimizer.front.tables import topics_of_trial
from optimizer.study.records import TrialRecord, json_from_outcome, outcome_from_json
from optimizer.study.study import SearchStudy
from optimizer.tracking.run_content import StudyFacts, content_of_record
from optimizer.verification.recompute import recompute
from optimizer.wiring import Place, place_at, study_at
from optimizer.workspace import load_blocks, save_blocks
from search_spaces.errors import SpaceError
from search_spaces.files import space_from_yaml
from search_spaces.metrics import METRICS
from search_spaces.space import Constraint
from trials.backends.fake import FakeBackend
from trials.backends.fake_gpu import power_w
from trials.capabilities import refuse_unmetered
from trials.errors import UnsupportedError
from trials.outcome import Completed

ENERGY = "energy_per_sample_mj"
WISHES = f"objectives: {{latency_p99_ms: minimize, {ENERGY}: minimize, accuracy: maximize}}"


def space_for_energy(folder: Path, text: str = SPACE) -> Path:
    bound = f'constraints: ["accuracy >= 0.7", "{ENERGY} <= 100"]'
    path = folder / "energy.yaml"
    path.write_text(text.replace('constraints: ["accuracy >= 0.7"]', f"{bound}\n{WISHES}"))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Search for energy once; nobody writes to it afterwards."""
    folder = tmp_path_factory.mktemp("energy")
    path = space_for_energy(folder)
    search(path, trials=12, sampler="random", workspace=folder / "w", mlflow="none")
    return place_at(folder / "w", None)


@pytest.fixture(scope="module")
def study(place: Place) -> SearchStudy:
    return study_at(place, None)


@pytest.fixture(scope="module")
def record(study: SearchStudy) -> TrialRecord:
    return next(one for one in study.records() if isinstance(one.outcome, Completed))


def outcome_of(record: TrialRecord) -> Completed:
    assert isinstance(record.outcome, Completed)
    return record.outcome


def test_every_measured_trial_has_the_energy_that_the_computed_gpu_drew(
    study: SearchStudy,
) -> None:
    """Its power under a load is a formula; blocks ripple by 1 % around it."""
    outcomes = [one.outcome for one in study.records() if isinstance(one.outcome, Completed)]

    assert len(outcomes) >= 10
    for outcome in outcomes:
        energy = outcome.metric(ENERGY)
        assert energy.low is not None
        assert energy.high is not None
        assert 0 < energy.low < energy.value < energy.high
        assert outcome.gpu is not None
        assert outcome.gpu.power_w is not None
        load = outcome.deployment
        drawn_w = power_w(in_flight=load.batch_size * load.concurrency, precision=load.precision)
        drawn_mj = 1e3 * drawn_w / outcome.speed.throughput_sps.value
        assert outcome.gpu.power_w == pytest.approx(drawn_w, rel=0.02)
        assert energy.value == pytest.approx(drawn_mj, rel=0.02)


def test_front_trades_energy_off(place: Place) -> None:
    from optimizer.api import open_study

    table = open_study(workspace=place.workspace.root).front().table()

    assert {ENERGY, f"{ENERGY}.low", f"{ENERGY}.high"} <= set(table.columns)
    assert (table[ENERGY] <= 100).all()
    assert table["member"].sum() >= 2


def test_show_and_the_dashboard_tell_what_the_gpu_did(
    study: SearchStudy, record: TrialRecord
) -> None:
    topics = dict(topics_of_trial(record, None))
    note = note_of_trial(record, study.space, verdict=None, certified=None, pictures=())

    told = dict(topics["the GPU meanwhile"])
    assert told["GPU"] == "computed GPU, GPU-computed"
    assert float(told["mean power [W]"].replace(",", "")) > 60
    assert "the GPU meanwhile" in note
    assert r"energy per sample \[mJ\]" in note


def test_mlflow_is_told_energy_and_its_limits(record: TrialRecord) -> None:
    facts = StudyFacts(study_id="s", backend="fake", digests={}, objectives=(ENERGY,))

    metrics = dict(content_of_record(record, facts).metrics)

    energy = outcome_of(record).metric(ENERGY)
    assert metrics[ENERGY] == energy.value
    assert metrics[f"{ENERGY}.low"] == energy.low
    assert next(iter(metrics)) == ENERGY
    gpu = outcome_of(record).gpu
    assert gpu is not None
    assert metrics["gpu_power_w"] == gpu.power_w


def test_report_shows_energy(place: Place, tmp_path: Path) -> None:
    from optimizer.api import open_study

    page = open_study(workspace=place.workspace.root).report(tmp_path / "report.html").read_text()

    assert "energy per sample [mJ]" in page


def test_export_promises_energy(place: Place, tmp_path: Path) -> None:
    from optimizer.api import open_study

    folder = open_study(workspace=place.workspace.root).export("knee", to=tmp_path / "deploy")

    manifest = json.loads((folder / "manifest.json").read_text())
    promised = {one["metric"]: one["measured"] for one in manifest["objectives"]}
    assert 0 < promised[ENERGY]["low"] < promised[ENERGY]["value"] <= 100


def test_energy_is_computed_again_to_the_last_digit(
    place: Place, study: SearchStudy, record: TrialRecord
) -> None:
    blocks = load_blocks(place.workspace.blocks(record.uid))

    found = recompute(record, blocks, study.space.plan)

    assert {"energy_per_sample_j", "power_w"} <= {one.name for one in found.statistics}
    assert found.differing == ()
    assert blocks[0].gpu is not None
    forged = replace(blocks[0], gpu=replace(blocks[0].gpu, begin_j=-1.0))
    again = recompute(record, (forged, *blocks[1:]), study.space.plan)
    assert again.differing == ("energy_per_sample_j", "power_w")


def test_readings_of_the_gpu_are_kept_with_the_raw_blocks(
    place: Place, record: TrialRecord, tmp_path: Path
) -> None:
    blocks = load_blocks(place.workspace.blocks(record.uid))

    save_blocks(blocks, tmp_path / "again.parquet")

    assert all(one.gpu is not None for one in blocks)
    assert [one.gpu for one in load_blocks(tmp_path / "again.parquet")] == [
        one.gpu for one in blocks
    ]


def test_record_of_before_has_no_gpu(record: TrialRecord) -> None:
    document = json.loads(json_from_outcome(record.outcome))
    del document["gpu"]

    outcome = outcome_from_json(json.dumps(document))

    assert isinstance(outcome, Completed)
    assert ENERGY not in outcome.metrics()
    with pytest.raises(KeyError):
        outcome.metric(ENERGY)


def test_space_that_asks_for_energy_is_refused_where_nothing_meters_it(tmp_path: Path) -> None:
    path = Path(write_space(tmp_path).source)
    path.write_text(f"{path.read_text()}\n{WISHES}\n")

    with pytest.raises(UnsupportedError, match=f"there is no {ENERGY} of .*take it out") as raised:
        search(path, trials=1, workspace=tmp_path / "w", mlflow="none")

    assert str(raised.value).startswith(str(path))


def test_bound_on_energy_is_refused_likewise_and_before_any_trial(tmp_path: Path) -> None:
    text = SPACE.replace("  threads: [1, 2]", "  load: [open]\n  rate_rps: [10]").replace(
        'rules: ["concurrency * threads <= 4"]', ""
    )
    space = space_from_yaml(space_for_energy(tmp_path, text))
    bound = Constraint(metric=METRICS[ENERGY], upper=True, bound=1.0)

    with pytest.raises(UnsupportedError, match="computes none of open loads"):
        refuse_unmetered(replace(space, objectives=(), constraints=(bound,)), FakeBackend())

    refuse_unmetered(replace(space, objectives=(), constraints=()), FakeBackend())


def test_energy_is_better_lower(tmp_path: Path) -> None:
    path = space_for_energy(tmp_path)
    path.write_text(path.read_text().replace(f"{ENERGY}: minimize", f"{ENERGY}: maximize"))

    with pytest.raises(SpaceError, match="better the other way"):
        load_space(path)
