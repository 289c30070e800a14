import html
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna_dashboard._app import STATIC_DIR

from optimizer.dashboard.server import CONTOUR_FAULT, dashboard_app, serve_dashboard
from optimizer.errors import OptimizerError, StorageError, UsageError
from optimizer.study.records import json_from_outcome
from search_spaces.deployment import Deployment, Precision
from trials.outcome import Environment, Infeasible

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
HEADLESS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=8000",
    "--dump-dom",
)


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


def call(app: Any, path: str, method: str = "GET") -> tuple[str, bytes]:
    """Call a WSGI app and return status line and body."""
    seen: list[str] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.input": BytesIO(),
    }
    body = b"".join(app(environ, lambda status, _headers, *_: seen.append(status)))
    return seen[0], body


@contextmanager
def served(url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a storage in a process of its own; give the process and the page's address."""
    program = (
        "from optimizer.dashboard.server import serve_dashboard;"
        f"serve_dashboard({url!r}, host='127.0.0.1', port=0,"
        "on_ready=lambda url: print(url, flush=True));"
        "print('ended')"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
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


@pytest.fixture(scope="module")
def storage_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('study') / 'studies.db'}"
    fill(RDBStorage(url))
    return url


def test_page_is_told_the_feasible_front_in_peoples_units() -> None:
    storage = InMemoryStorage()
    front = fill(storage)

    detail = json.loads(call(dashboard_app(storage), "/api/studies/0")[1])

    assert [trial["number"] for trial in detail["best_trials"]] == front
    assert detail["objective_names"] == ["latency_p99_ms", "throughput_sps", "accuracy"]
    assert detail["trials"][0]["values"] == [10.0, 100.0, 0.8]
    assert detail["trials"][1]["constraints"] == [0.0, 1.0]
    assert "values" not in detail["trials"][2]


def test_importances_count_deployments_that_cannot_run() -> None:
    storage = InMemoryStorage()
    fill(storage)

    status, body = call(dashboard_app(storage), "/api/studies/0/param_importances")

    assert status.startswith("200")
    assert json.loads(body)["param_importances"][0][0]["name"] == "variant"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_writing_request_is_refused_in_one_line(method: str) -> None:
    storage = InMemoryStorage()
    fill(storage)

    status, body = call(dashboard_app(storage), "/api/studies/0", method)

    assert status == "405 Method Not Allowed"
    assert body.count(b"\n") == 1
    assert len(storage.get_all_studies()) == 1


def test_contour_page_pairs_values_with_their_own_trials() -> None:
    script = (Path(STATIC_DIR) / "bundle.js").read_bytes()

    served_script = call(dashboard_app(InMemoryStorage()), "/static/bundle.js")[1]

    assert script.count(CONTOUR_FAULT) == 1
    assert CONTOUR_FAULT not in served_script


def test_host_that_others_can_reach_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not served on 0\.0\.0\.0"):
        serve_dashboard("sqlite:///x.db", host="0.0.0.0", port=0, on_ready=print)  # noqa: S104


def test_storage_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"

    with pytest.raises(StorageError, match=r"no study storage .*none\.db"):
        serve_dashboard(url, host="127.0.0.1", port=0, on_ready=print)

    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_storage_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    file.write_text("milk, eggs\n" * 200)

    with pytest.raises(StorageError) as caught:
        serve_dashboard(f"sqlite:///{file}", host="127.0.0.1", port=0, on_ready=print)

    assert "\n" not in str(caught.value)


def test_port_that_is_taken_is_refused_with_the_mend(storage_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(OptimizerError, match=f"port {port} .* is taken") as caught:
            serve_dashboard(storage_url, host="127.0.0.1", port=port, on_ready=print)

    assert "--port" in caught.value.hint


def test_server_answers_quietly_and_ends_cleanly_on_interrupt(storage_url: str) -> None:
    with served(storage_url) as (process, url):
        with urlopen(url) as page:  # noqa: S310 - our own server's address
            content = page.read()
        process.send_signal(signal.SIGINT)
        rest = process.communicate()[0]

    assert b"Optuna Dashboard" in content
    assert rest == "ended\n"
    assert process.returncode == 0


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: scripts/browser-install")
def test_browser_shows_the_feasible_front_as_best(storage_url: str, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    with served(storage_url) as (_, url):
        page = subprocess.run(
            [CHROMIUM, *HEADLESS, f"--user-data-dir={tmp_path}", f"{url}studies/1/trials"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    best = re.findall(r"Trial (\d+)\s+Complete\s+Best Trial", text)
    assert "30 Trials" in text
    assert best
    assert all(int(number) % 3 == 0 for number in best)
