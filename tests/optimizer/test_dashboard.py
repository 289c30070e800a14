"""The dashboard as its page and other visitors ask it, in this process and over the wire."""

import gzip
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState
from optuna_dashboard import save_note
from optuna_dashboard._app import STATIC_DIR, create_app
from optuna_dashboard.preferential import create_study as create_preferential_study
from search_fakes import SPACE, failed, infeasible, measured, searched

from optimizer.certifying.certificate import Certificate, Certified, keep_certificate
from optimizer.dashboard.app import Dashboard
from optimizer.dashboard.artifacts import BlocksProvider, TrialArtifacts, identity_of
from optimizer.dashboard.gate import Gate
from optimizer.dashboard.script import CONTOUR_FAULT
from optimizer.dashboard.server import Door, opened_dashboard
from optimizer.errors import OptimizerError, StorageError, UsageError
from optimizer.front.front import front_of
from optimizer.study.opening import find_study
from optimizer.study.records import TrialRecord, json_from_outcome
from optimizer.study.storage import existing_storage
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment, Precision
from search_spaces.files import space_from_yaml
from trials.measurement import Estimate
from trials.outcome import Completed, Environment, Infeasible, Outcome

ROOT = Path(__file__).parents[2]
NOWHERE = Workspace(root=Path("nowhere"))


def fill(storage: BaseStorage) -> list[int]:
    """Make a study of 30 trials in which those that are out of bounds have the best values.

    Returns:
        Numbers of the front: of every three trials one on it, one too slow, one that cannot run.
    """
    study = optuna.create_study(
        storage=storage, study_name="demo", directions=["minimize", "maximize", "maximize"]
    )
    names = ["log10(latency_p99_ms)", "log10(throughput_sps)", "accuracy"]
    storage.set_study_system_attr(study._study_id, "study:metric_names", names)
    study.add_trials([a_trial(number) for number in range(30)])
    return list(range(0, 30, 3))


def a_trial(number: int) -> optuna.trial.FrozenTrial:
    kind = ("good", "slow", "ghost")[number % 3]
    rank = 0.01 * (number // 3)
    values = {"good": (1 + rank, 2 + rank, 0.8), "slow": (1, 3, 0.9), "ghost": (-3.0, 9.0, 1.0)}
    deployment = Deployment(variant=kind, precision=Precision.FP32, batch_size=1, concurrency=1)
    cannot = Infeasible(
        deployment=deployment,
        kind="memory",
        reason="does not fit",
        environment=Environment(facts=()),
    )
    return optuna.create_trial(
        values=list(values[kind]),
        params={"variant": kind},
        distributions={"variant": CategoricalDistribution(("good", "slow", "ghost"))},
        user_attrs={"outcome": json_from_outcome(cannot)} if kind == "ghost" else {},
        constraints={"deployable": float(kind == "ghost"), "fast": float(kind != "good")},
    )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(app: Any, path: str, method: str = "GET", **environ: Any) -> Answer:
    """Call a WSGI app."""
    seen: list[Any] = []
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.input": BytesIO(),
        **environ,
    }
    body = b"".join(app(environ, lambda status, headers, *_: seen.append((status, headers))))
    return Answer(int(seen[0][0][:3]), dict(seen[0][1]), body)


def put(app: Any, path: str, document: object, method: str = "PUT") -> Answer:
    body = json.dumps(document).encode()
    return call(
        app,
        path,
        method,
        CONTENT_LENGTH=str(len(body)),
        CONTENT_TYPE="application/json",
        **{"wsgi.input": BytesIO(body)},
    )


def page_of(storage: BaseStorage, workspace: Workspace = NOWHERE, **options: Any) -> Dashboard:
    return Dashboard(storage, TrialArtifacts([BlocksProvider(workspace)]), **options)


@contextmanager
def served(workspace: Workspace) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a workspace in a process of its own; give the process and the page's address."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from optimizer.dashboard.server import Door, opened_dashboard\n"
        "from optimizer.workspace import Workspace\n"
        "workspace = Workspace(root=Path(sys.argv[1]))\n"
        "with opened_dashboard(workspace.storage_url, workspace, Door(port=0)) as page:\n"
        "    print(page.address, flush=True)\n"
        "    page.serve()\n"
        "print('ended')"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, str(workspace.root)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def mixed(deployment: Deployment) -> Outcome:
    """Answer so that every kind of outcome is there."""
    if deployment.batch_size == 8:
        return infeasible(deployment)
    return failed(deployment) if deployment.concurrency == 3 else measured(deployment)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("made")
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    workspace = Workspace(root=folder / "work")
    searched(workspace, space_from_yaml(folder / "tiny.yaml"), trials=25, answer=mixed)
    return workspace


@pytest.fixture
def workspace(made: Workspace, tmp_path: Path) -> Workspace:
    """A workspace of one's own, in which a search has run."""
    shutil.copytree(made.root, tmp_path / "work")
    return Workspace(root=tmp_path / "work")


@pytest.fixture
def study(workspace: Workspace) -> SearchStudy:
    url = workspace.storage_url
    return find_study(optuna.storages.RDBStorage(url), url, "tiny")


@pytest.fixture
def page(workspace: Workspace) -> Dashboard:
    return page_of(existing_storage(workspace.storage_url), workspace)


@pytest.fixture
def writable(workspace: Workspace) -> Dashboard:
    return page_of(existing_storage(workspace.storage_url), workspace, allow_writes=True)


def test_page_is_told_the_feasible_front_in_peoples_units() -> None:
    storage = InMemoryStorage()
    front = fill(storage)

    detail = call(page_of(storage), "/api/studies/0").json

    assert [trial["number"] for trial in detail["best_trials"]] == front
    assert detail["objective_names"] == ["latency_p99_ms", "throughput_sps", "accuracy"]
    assert detail["trials"][0]["values"] == [10.0, 100.0, 0.8]
    assert detail["trials"][1]["constraints"] == [0.0, 1.0]
    assert "values" not in detail["trials"][2]


def test_answer_has_the_form_of_optuna_dashboards_own(
    page: Dashboard, workspace: Workspace
) -> None:
    """Whatever the page looks for is there."""
    ours = call(page, "/api/studies/1").json
    theirs = call(create_app(existing_storage(workspace.storage_url)), "/api/studies/1").json

    assert ours.keys() == theirs.keys()
    assert ours["trials"][0].keys() == theirs["trials"][0].keys()
    same = ("name", "directions", "is_preferential", "has_intermediate_values")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


def test_search_space_is_that_of_the_ended_trials(page: Dashboard, study: SearchStudy) -> None:
    """A trial that has just begun has no parameters yet, which must not empty the space."""
    call(page, "/api/studies/1")
    study.study.ask()

    detail = call(page, "/api/studies/1").json

    wanted = set(study.encoding.distributions)
    assert {one["name"] for one in detail["union_search_space"]} == wanted
    assert {one["name"] for one in detail["intersection_search_space"]} == wanted


def test_best_trials_are_the_front_that_the_command_line_shows(
    page: Dashboard, study: SearchStudy
) -> None:
    front = front_of(study.records(), study.space.objectives, study.space.constraints)

    detail = call(page, "/api/studies/1").json

    shown = {trial["number"] for trial in detail["best_trials"]}
    assert shown == {record.number for record in front.members}


def test_poll_brings_the_trials_that_are_new_and_every_best_one(page: Dashboard) -> None:
    whole = call(page, "/api/studies/1?after=0").json

    polled = call(page, "/api/studies/1?after=20").json

    assert polled["trials"] == whole["trials"][20:]
    assert polled["best_trials"] == whole["best_trials"]


def test_every_ended_trial_has_a_note(page: Dashboard) -> None:
    trials = call(page, "/api/studies/1").json["trials"]

    ended = [trial for trial in trials if trial["state"] in ("Complete", "Fail")]
    assert {trial["note"]["body"][:3] for trial in ended} == {"## "}
    assert any("needs 25 GB of 24 GB" in trial["note"]["body"] for trial in ended)
    assert any("killed by SIGSEGV" in trial["note"]["body"] for trial in ended)


def test_verdict_that_comes_later_is_in_the_note(page: Dashboard, study: SearchStudy) -> None:
    verdicts = study.verdicts()
    late = next(
        record
        for record in study.records()
        if isinstance(record.outcome, Completed) and record.number not in verdicts
    )

    before = call(page, "/api/studies/1").json["trials"][late.number]["note"]["body"]
    study.keep_verdict(late.number, next(iter(verdicts.values())))
    after = call(page, "/api/studies/1").json["trials"][late.number]["note"]["body"]

    assert "on the report split" not in before
    assert "on the report split, 100 samples" in after


def test_certificate_that_comes_later_is_in_the_notes(page: Dashboard, study: SearchStudy) -> None:
    url = "/api/studies/1"
    number = call(page, url).json["best_trials"][0]["number"]
    speed = ("latency_p99_ms", Estimate(value=2.0, low=1.5, high=2.5))
    rate = ("throughput_sps", Estimate(value=500.0, low=450.0, high=550.0))
    certified = Certified(trial=number, probability=0.97, sessions=3, speeds=(speed, rate))

    before = call(page, url).json
    keep_certificate(
        study,
        Certificate(
            at_s=0.0,
            sessions=3,
            decided=True,
            trials=25,
            contended=0.0,
            candidates=(certified,),
        ),
    )
    after = call(page, url).json

    assert "certified" not in str(before)
    assert "certified 1970-01-01 in 3 sessions, decided" in after["note"]["body"]
    assert "### certified, in 3 sessions" in after["trials"][number]["note"]["body"]
    others = [one for one in after["trials"] if one["number"] != number]
    assert not any("### certified" in one["note"]["body"] for one in others)


def test_measured_trials_have_a_histogram_and_blocks_that_can_be_had(page: Dashboard) -> None:
    trials = call(page, "/api/studies/1").json["trials"]
    measured_ones = [trial for trial in trials if "latency_p99_ms" in str(trial["user_attrs"])]

    files = {one["filename"]: one for one in measured_ones[0]["artifacts"]}
    root = f"/artifacts/1/{measured_ones[0]['trial_id']}"
    picture = call(page, f"{root}/{files['latencies.png']['artifact_id']}")
    blocks = call(page, f"{root}/{files['blocks.parquet']['artifact_id']}")

    assert len(measured_ones) == sum(bool(trial["artifacts"]) for trial in trials)
    assert (picture.status, picture.headers["Content-Type"]) == (200, "image/png")
    assert picture.body.startswith(b"\x89PNG")
    assert blocks.headers["Content-Disposition"].startswith('attachment; filename="trial-')
    assert blocks.body.startswith(b"PAR1")


def test_blocks_that_come_to_this_machine_later_are_shown_then(
    page: Dashboard, study: SearchStudy, workspace: Workspace
) -> None:
    record = next(one for one in study.records() if isinstance(one.outcome, Completed))
    blocks = workspace.blocks(record.uid)
    away = blocks.rename(blocks.with_suffix(".away"))

    before = call(page, "/api/studies/1").json["trials"][record.number]["artifacts"]
    away.rename(blocks)
    after = call(page, "/api/studies/1").json["trials"][record.number]["artifacts"]

    assert before == []
    assert len(after) == 2


@pytest.mark.parametrize(
    "path",
    [
        f"/artifacts/1/1/{identity_of(1, 'other.png')}",
        f"/artifacts/1/1/{identity_of(2, 'latencies.png')}",
        f"/artifacts/1/1/{identity_of(1, '../../studies.db')}",
        f"/artifacts/1/9999/{identity_of(9999, 'latencies.png')}",
        f"/artifacts/7/1/{identity_of(1, 'latencies.png')}",
        "/artifacts/1/1/abc",
        "/artifacts/1/abc",
        "/artifacts/../studies.db",
    ],
)
def test_file_that_is_not_there_is_not_found_in_one_line(page: Dashboard, path: str) -> None:
    answer = call(page, path)

    assert answer.status == 404
    assert answer.body.count(b"\n") == 1


class PageProvider:
    """A provider whose file a browser would run, if it were told so."""

    def names(self, record: TrialRecord) -> tuple[str, ...]:
        return ("report.html",) if record.number == 0 else ()

    def content(self, record: TrialRecord, name: str) -> bytes:
        return f"<script>alert('{name} of {record.number}')</script>".encode()


def test_page_among_the_files_is_a_download_and_runs_nothing(workspace: Workspace) -> None:
    storage = existing_storage(workspace.storage_url)
    app = Gate(
        Dashboard(storage, TrialArtifacts([PageProvider()])), doorkeeper=None, allow_writes=False
    )

    path = f"/artifacts/1/1/{identity_of(1, 'report.html')}"
    answer = call(app, path, HTTP_HOST="localhost")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_importances_count_deployments_that_cannot_run() -> None:
    storage = InMemoryStorage()
    fill(storage)

    importances = call(page_of(storage), "/api/studies/0/param_importances").json

    assert importances["param_importances"][0][0]["name"] == "variant"


def test_importances_of_a_single_trial_are_none() -> None:
    storage = InMemoryStorage()
    optuna.create_study(storage=storage, directions=["minimize"] * 2).add_trial(
        optuna.create_trial(values=[1.0, 2.0])
    )

    answer = call(page_of(storage), "/api/studies/0/param_importances")

    assert answer.json == {"param_importances": [[], []]}


@pytest.mark.parametrize("path", ["/api/studies/77", "/api/studies/77/param_importances"])
def test_study_that_is_not_there_is_not_found(page: Dashboard, path: str) -> None:
    assert call(page, path).status == 404


@pytest.mark.parametrize("after", ["-1", "x", "1.5"])
def test_number_of_a_trial_that_is_none_is_refused(page: Dashboard, after: str) -> None:
    assert call(page, f"/api/studies/1?after={after}").status == 400


def test_study_of_somebody_else_is_shown_as_it_is() -> None:
    storage = InMemoryStorage()
    other = optuna.create_study(storage=storage, study_name="other")
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    save_note(other, "# Mine")

    detail = call(page_of(storage), "/api/studies/0").json

    assert detail["note"]["body"] == "# Mine"
    assert detail["plotly_graph_objects"] == []
    assert [trial["number"] for trial in detail["best_trials"]] == [other.best_trial.number]
    assert detail["trials"][0]["note"]["body"] == ""


def test_page_is_never_asked_to_draw_on_the_server(page: Dashboard) -> None:
    """Those plots would fail on trials without values."""
    abilities = call(page, "/api/meta").json

    assert abilities["plotlypy_is_available"] is False
    assert abilities["artifact_is_available"] is True


def test_contour_page_pairs_values_with_their_own_trials(page: Dashboard) -> None:
    script = (Path(STATIC_DIR) / "bundle.js").read_bytes()

    plain = call(page, "/static/bundle.js")
    zipped = call(page, "/static/bundle.js", HTTP_ACCEPT_ENCODING="br, gzip")

    assert script.count(CONTOUR_FAULT) == 1
    assert CONTOUR_FAULT not in plain.body
    assert gzip.decompress(zipped.body) == plain.body


def test_script_that_a_browser_has_is_not_sent_again(page: Dashboard) -> None:
    tag = call(page, "/static/bundle.js").headers["ETag"]

    again = call(page, "/static/bundle.js", HTTP_IF_NONE_MATCH=tag)

    assert (again.status, again.body) == (304, b"")


def test_head_is_the_answer_without_its_body(page: Dashboard) -> None:
    whole, head = (call(page, "/api/meta", method) for method in ("GET", "HEAD"))

    assert head.body == b""
    assert head.headers == whole.headers


def test_note_can_be_written_where_writes_are_allowed_and_the_rest_stays_translated(
    study: SearchStudy, writable: Dashboard
) -> None:
    page = writable
    trial = call(page, "/api/studies/1").json["trials"][0]
    path = f"/api/studies/1/{trial['trial_id']}/note"

    assert put(page, path, {"body": "ours", "version": trial["note"]["version"] + 1}).status == 204
    after = call(page, "/api/studies/1").json["trials"][0]

    assert after["note"] == {"version": trial["note"]["version"] + 1, "body": "ours"}
    assert {**after, "note": None} == {**trial, "note": None}
    assert study.study._storage.get_study_system_attrs(1)["dashboard:1:note_str:0"] == "ours"


def test_study_can_be_made_where_writes_are_allowed(writable: Dashboard) -> None:
    new = {"study_name": "new", "directions": ["minimize"]}

    answer = put(writable, "/api/studies", new, method="POST")

    assert answer.status == 201
    assert call(writable, f"/api/studies/{answer.json['study_summary']['study_id']}").status == 200


def test_preferences_can_be_told_where_writes_are_allowed() -> None:
    storage = InMemoryStorage()
    preferential = create_preferential_study(
        n_generate=2, storage=storage, sampler=optuna.samplers.RandomSampler()
    )
    for _ in range(2):
        preferential.ask()
    page = page_of(storage, allow_writes=True)

    told = put(
        page,
        "/api/studies/0/preference",
        {"mode": "ChooseWorst", "candidates": [0, 1], "clicked": 0},
        method="POST",
    )

    assert told.status == 204
    assert call(page, "/api/studies/0").json["preferences"] == [[1, 0]]


@pytest.mark.parametrize("what", ["tell", "user-attrs"])
def test_trial_of_a_search_is_told_by_the_search_alone(
    study: SearchStudy, writable: Dashboard, what: str
) -> None:
    asked = study.ask()

    answer = put(
        writable,
        f"/api/trials/{asked.trial._trial_id}/{what}",
        {"state": "Complete", "values": [1.0, 2.0, 0.5], "user_attrs": {"outcome": "{}"}},
        method="POST",
    )

    assert answer.status == 403
    assert study.study.trials[asked.trial.number].state is TrialState.RUNNING
    assert "outcome" not in study.study.trials[asked.trial.number].user_attrs


def test_study_can_be_deleted_where_writes_are_allowed_and_its_blocks_stay(
    study: SearchStudy, workspace: Workspace, writable: Dashboard
) -> None:
    call(writable, "/api/studies/1")

    deleted = put(writable, "/api/studies/1", {"remove_associated_artifacts": True}, "DELETE")

    assert deleted.status == 204
    assert call(writable, "/api/studies/1").status == 404
    assert any(workspace.blocks(record.uid).exists() for record in study.records())


def test_database_that_vanishes_is_said_in_one_line_for_as_long_as_it_is_away(
    page: Dashboard, workspace: Workspace
) -> None:
    database = workspace.root / "studies.db"
    page._view._storage.engine.dispose()  # type: ignore[attr-defined]
    away = database.rename(workspace.root / "away.db")

    answer = call(page, "/api/studies/1")
    database.unlink(missing_ok=True)  # SQLite makes an empty one
    away.rename(database)
    page._view._storage.engine.dispose()  # type: ignore[attr-defined]

    assert answer.status == 503
    assert "no such table" in answer.json["reason"]
    assert call(page, "/api/studies/1").status == 200


def test_first_look_can_be_taken_before_anybody_asks(page: Dashboard) -> None:
    page.warm_up()

    assert page._details._kept[1].texts


def test_host_that_others_can_reach_is_refused_without_a_password() -> None:
    with pytest.raises(UsageError, match=r"not served on 0\.0\.0\.0") as caught:
        Door(host="0.0.0.0").check()  # noqa: S104

    assert "TRIFRONT_PASSWORD" in caught.value.hint
    Door(host="0.0.0.0", password=b"correct horse").check()  # noqa: S104


def test_storage_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"

    with (
        pytest.raises(StorageError, match=r"no study storage .*none\.db"),
        opened_dashboard(url, NOWHERE, Door(port=0)),
    ):
        pass

    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_storage_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    file.write_text("milk, eggs\n" * 200)

    with (
        pytest.raises(StorageError) as caught,
        opened_dashboard(f"sqlite:///{file}", NOWHERE, Door(port=0)),
    ):
        pass

    assert "\n" not in str(caught.value)


def test_port_that_is_taken_is_refused_with_the_mend(workspace: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        door = Door(port=other.getsockname()[1])

        with (
            pytest.raises(OptimizerError, match=f"port {door.port} .* is taken") as caught,
            opened_dashboard(workspace.storage_url, workspace, door),
        ):
            pass

    assert "--port" in caught.value.hint


def test_server_answers_quietly_and_ends_cleanly_on_interrupt(workspace: Workspace) -> None:
    with served(workspace) as (process, url):
        with urlopen(url) as answer:  # noqa: S310 - our own server's address
            content = answer.read()
        process.send_signal(signal.SIGINT)
        rest = process.communicate()[0]

    assert b"Optuna Dashboard" in content
    assert rest == "ended\n"
    assert process.returncode == 0


def test_visitor_who_goes_away_early_leaves_no_word_behind(workspace: Workspace) -> None:
    with served(workspace) as (process, url):
        port = urlsplit(url).port
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port or 0)) as visitor:
                visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                visitor.sendall(b"GET /static/bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with urlopen(url) as answer:  # noqa: S310 - our own server's address
            answer.read()
        process.send_signal(signal.SIGINT)
        rest = process.communicate()[0]

    assert rest == "ended\n"
