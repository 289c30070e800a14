"""``trifront ui``: both pages are there, and nothing of them outlives the command."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest

from optimizer.dashboard.mlflow_ui import mlflow_ui
from optimizer.errors import OptimizerError, TrackingError, UsageError
from optimizer.tracking.database import make_sqlite

PATIENCE_S = 60.0
# MLflow alone imports for seconds, on a busy machine for a minute
pytestmark = pytest.mark.timeout(300)
PROGRAM = "from optimizer.cli import main; main()"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *arguments]


def never() -> None:
    raise AssertionError("MLflow ended by itself")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a study and runs."""
    folder = tmp_path_factory.mktemp("place") / "trifront"
    searching = ("search", "fake", "--trials", "6", "--sampler", "random", "-w", str(folder))
    subprocess.run(command(*searching), check=False, capture_output=True, timeout=100)
    return folder


@contextmanager
def ui(workspace: Path, *options: str) -> Iterator[tuple[psutil.Process, list[str]]]:
    """Run the command; give its process and both addresses."""
    process = subprocess.Popen(
        command("ui", "--port", "0", "--mlflow-port", "0", "-w", str(workspace), *options),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        yield psutil.Process(process.pid), [line.split()[2].rstrip(",") for line in lines]
    finally:
        process.kill()
        process.communicate()


def all_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def is_free(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(address).port or 0)) != 0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_both_pages_are_there_until_the_command_ends_and_no_server_after(
    workspace: Path, ending: signal.Signals
) -> None:
    with ui(workspace) as (process, addresses):
        servers = process.children(recursive=True)
        pages = [urlopen(address).read() for address in addresses]  # noqa: S310 - our own

        process.send_signal(ending)

        assert all_gone([process, *servers])

    assert len(servers) >= 2
    assert b"Optuna Dashboard" in pages[0]
    assert b"MLflow" in pages[1]
    assert all(map(is_free, addresses))


def test_mlflow_that_dies_is_told_and_the_dashboard_stays(workspace: Path) -> None:
    with ui(workspace) as (process, addresses):
        for server in process.children(recursive=True)[::-1]:
            server.kill()
        while not is_free(addresses[1]):
            time.sleep(0.1)

        with urlopen(addresses[0]) as page:  # noqa: S310 - our own
            assert b"Optuna Dashboard" in page.read()
        process.send_signal(signal.SIGINT)
        assert all_gone([process])


def test_server_that_runs_already_is_named_and_not_started(workspace: Path) -> None:
    with ui(workspace, "--mlflow", "http://mlflow.example:5000") as (process, addresses):
        assert addresses[1] == "http://mlflow.example:5000"
        assert process.children() == []


def test_uri_which_may_hold_a_password_is_on_no_command_line(tmp_path: Path) -> None:
    make_sqlite(uri := f"sqlite:///{tmp_path / 'mlflow.db'}")

    with mlflow_ui(uri, port=0, on_end=never):
        children = psutil.Process().children(recursive=True)
        lines = [" ".join(child.cmdline()) for child in children]

    assert any("mlflow" in line for line in lines)
    assert not any("sqlite" in line for line in lines)


def test_port_that_is_taken_is_refused_with_the_mend(tmp_path: Path) -> None:
    make_sqlite(uri := f"sqlite:///{tmp_path / 'mlflow.db'}")
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(OptimizerError, match=r"port \d+ on 127\.0\.0\.1 is taken") as caught,
        mlflow_ui(uri, port=other.getsockname()[1], on_end=never),
    ):
        pass

    assert "--mlflow-port" in caught.value.hint


@pytest.mark.parametrize(
    ("uri", "error", "words"),
    [
        ("sqlite:///{folder}/none.db", UsageError, "there is no MLflow database"),
        ("sqlite:///{folder}/notes.db", TrackingError, "not a database"),
        ("sqlite:///{folder}/empty.db", UsageError, "there are no MLflow runs"),
        ("postgresql://me:secret@127.0.0.1:1/runs", TrackingError, "refused"),
        ("gopher://runs", UsageError, "gopher"),
    ],
)
def test_database_that_cannot_be_shown_is_one_line_before_anything_starts(
    tmp_path: Path, uri: str, error: type[OptimizerError], words: str
) -> None:
    (tmp_path / "notes.db").write_text("milk, eggs\n" * 200)
    (tmp_path / "empty.db").touch()

    with (
        pytest.raises(error, match=words) as caught,
        mlflow_ui(uri.format(folder=tmp_path), port=0, on_end=never),
    ):
        pass

    assert "secret" not in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--host", "0.0.0.0"), "TRIFRONT_PASSWORD"),  # noqa: S104 - it is refused
        (("--host", "mine.example"), "ssh -L"),
        (("--password-file", "none.txt"), "No such file"),
        (("--password-file", "empty.txt"), "too short"),
    ],
)
def test_dashboard_without_a_good_password_is_refused_with_the_next_step(
    workspace: Path, options: tuple[str, ...], words: str
) -> None:
    (workspace.parent / "empty.txt").touch()

    ran = subprocess.run(
        command("dashboard", "-w", str(workspace), "--port", "0", *options),
        cwd=workspace.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert ran.returncode == 1
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


def test_dashboard_for_others_says_that_its_password_travels_readable(
    workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("correct horse battery\n")
    options = ("--host", "0.0.0.0", "--password-file", str(tmp_path / "secret"))  # noqa: S104
    process = subprocess.Popen(
        command("dashboard", "-w", str(workspace), "--port", "0", *options),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        warning, address = (process.stderr.readline() for _ in range(2))
        with pytest.raises(HTTPError, match="401"):
            urlopen(address.split()[2].rstrip(",").replace("0.0.0.0", "127.0.0.1"))  # noqa: S104, S310
    finally:
        process.kill()
        process.communicate()

    assert "proxy that speaks TLS" in warning


def test_without_runs_the_next_step_is_said(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    shutil.copy(workspace / "studies.db", tmp_path / "own")

    for options in ((), ("--mlflow", "none")):
        ran = subprocess.run(
            command("ui", "-w", str(tmp_path / "own"), "--port", "0", *options),
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

        assert ran.returncode == 1
        assert "trifront dashboard" in ran.stderr
