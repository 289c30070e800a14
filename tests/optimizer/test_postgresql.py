"""One study, several searches: on a real PostgreSQL server, and on SQLite in one workspace."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from optuna.trial import TrialState
from search_fakes import SPACE

from optimizer.errors import StorageError
from optimizer.study.opening import find_study
from optimizer.study.storage import existing_storage
from optimizer.study.study import SearchStudy
from optimizer.wiring import place_at, study_at
from trials.outcome import Completed

PASSWORD = "hunter2"
TRIALS = 20  # of 80: two searches with one seed would propose the same ones
SERVER_USER = "postgres"  # the server refuses to run as root


def binaries() -> Path | None:
    """Find PostgreSQL's newest programs, which distributions keep off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).parent if named else None


def _version(program: Path) -> float:
    return float(program.parts[-3])


def account() -> int | None:
    """Return the user to run the server as; None is ourselves."""
    return pwd.getpwnam(SERVER_USER).pw_uid if os.geteuid() == 0 else None


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server; every database in it has the same user and password."""

    port: int
    programs: Path

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        """Return the URL of a database."""
        return f"postgresql://me:{password}@127.0.0.1:{self.port}/{database}"

    def make(self, database: str) -> str:
        """Make an empty database and return its URL."""
        connection = ["--host", "127.0.0.1", "--port", str(self.port), "--username", "me"]
        subprocess.run(
            [self.programs / "createdb", *connection, database],
            env=os.environ | {"PGPASSWORD": PASSWORD},
            check=True,
        )
        return self.url(database)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server of our own in a temporary folder, on loopback and with a password."""
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here")
    user = account()
    # not pytest's folder, which is closed to other users
    folder = Path(tempfile.mkdtemp(prefix="trifront-postgresql-"))
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="ascii")
    for path in (folder, secret):
        os.chown(path, -1 if user is None else user, -1)
    arguments = [
        "--auth",
        "scram-sha-256",
        "--username",
        "me",
        "--pwfile",
        str(secret),
        "--no-sync",
    ]
    subprocess.run(
        [str(programs / "initdb"), "--pgdata", str(folder / "data"), *arguments],
        user=user,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    try:
        yield from _running(programs, folder, user)
    finally:
        shutil.rmtree(folder)


def _running(programs: Path, folder: Path, user: int | None) -> Iterator[Server]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -p {port} -F"
    control = [str(programs / "pg_ctl"), "--pgdata", str(folder / "data"), "--silent", "--wait"]
    log = ["--log", str(folder / "log")]
    subprocess.run(
        [*control, *log, "--options", options, "start"], user=user, cwd=folder, check=True
    )
    try:
        yield Server(port=port, programs=programs)
    finally:
        subprocess.run(
            [*control, "--mode", "immediate", "stop"], user=user, cwd=folder, check=True
        )


def searching(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start a search of the tiny space in a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    program = str(Path(sys.executable).with_name("trifront"))
    budget = ("--trials", str(TRIALS), "--sampler", "random", "--mlflow", "none")
    return subprocess.Popen(
        [program, "search", "space.yaml", *budget, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*searches: subprocess.Popen[str]) -> None:
    """Wait for all; each must end well."""
    said = [search.communicate()[0] for search in searches]
    assert [search.returncode for search in searches] == [0] * len(searches), said


@contextmanager
def opened(url: str) -> Iterator[SearchStudy]:
    """Open the study on a server, and close the connections, which the driver insists on."""
    storage = existing_storage(url)
    try:
        yield find_study(storage, url, "tiny")
    finally:
        storage.remove_session()
        storage.engine.dispose()


def assert_made_together(study: SearchStudy) -> None:
    """Check that the budget was met exactly, that nothing was tried twice and nothing runs."""
    states = [trial.state for trial in study.study.get_trials()]
    tried = Counter(record.outcome.deployment for record in study.records())
    assert max(tried.values()) == 1
    assert states == [TrialState.COMPLETE] * TRIALS


def owners(study: SearchStudy) -> int:
    """Count the processes that ran trials."""
    return len({trial.user_attrs["owner"] for trial in study.study.get_trials()})


def test_two_searches_on_one_server_make_the_budget_and_try_nothing_twice(
    server: Server, tmp_path: Path
) -> None:
    """Each has a workspace of its own, as on two machines, and the database is empty."""
    url = server.make("shared")

    finish(*(searching(tmp_path / name, "--storage", url) for name in ("one", "other")))

    with opened(url) as study:
        assert_made_together(study)
        assert owners(study) == 2


def test_two_searches_in_one_workspace_make_the_budget_and_try_nothing_twice(
    tmp_path: Path,
) -> None:
    finish(searching(tmp_path), searching(tmp_path))

    study = study_at(place_at(tmp_path / "trifront", None), None)
    assert_made_together(study)
    assert owners(study) == 2
    assert all(
        (tmp_path / f"trifront/blocks/{record.uid}.parquet").exists()
        for record in study.records()
        if isinstance(record.outcome, Completed)
    )


def test_wrong_password_is_one_line_that_does_not_repeat_it(
    server: Server, tmp_path: Path
) -> None:
    search = searching(tmp_path, "--storage", server.url("postgres", password="letmein"))

    said = search.communicate()[0]

    assert search.returncode == 1
    assert "password authentication failed" in said
    assert "letmein" not in said
    assert len(said.splitlines()) == 2
    assert not (tmp_path / "trifront").exists()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:9/db",
        f"postgresql:///db?host=127.0.0.1&port=9&user=me&password={PASSWORD}",
        f"postgresql://me:{PASSWORD}@127.0.0.1:port/db",
        f"postgresql://me:{PASSWORD}@[::1/db",
        f"postgres://me:{PASSWORD}@127.0.0.1/db",
        f"postgresql+carrierpigeon://me:{PASSWORD}@127.0.0.1/db",
        f"postgresql://me:{PASSWORD}@127.0.0.1:9/db?sslmode=bogus",
        f"postgresql://me:at@{PASSWORD}@127.0.0.1:9/db",
    ],
)
def test_password_of_a_url_never_appears_in_a_message(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        existing_storage(url)

    assert PASSWORD not in str(caught.value) + caught.value.hint
    assert "\n" not in str(caught.value)
