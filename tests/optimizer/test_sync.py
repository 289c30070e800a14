"""``trifront sync``, as a user runs it: what waits is delivered, and what came of it is said."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tracking_fakes import Server, a_free_port, a_server

from optimizer.tracking.destination import destination_of
from optimizer.tracking.spool import Spool
from optimizer.workspace import Workspace

PROGRAM = str(Path(sys.executable).with_name("trifront"))
SEARCH = ("search", "fake", "--trials", "4", "--sampler", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def synced(self) -> list[dict[str, Any]]:
        """The document of ``--json``."""
        found: list[dict[str, Any]] = json.loads(self.out)["mlflow"]
        return found


def trifront(folder: Path, *arguments: str, **environment: str) -> Ran:
    """Run the command line in a folder."""
    ran = subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ran.stderr
    return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server for all tests here, because starting one takes seconds."""
    with a_server(tmp_path_factory.mktemp("server")) as server:
        yield server


def runs_of(server: Server, experiment: str) -> dict[str, list[Any]]:
    """Return the runs of an experiment by the tag ``trial_uid``."""
    client = server.look_in()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    by_uid: dict[str, list[Any]] = {}
    for run in client.search_runs([found.experiment_id], max_results=1000):
        by_uid.setdefault(run.data.tags["trial_uid"], []).append(run)
    return by_uid


def assert_whole(server: Server, experiment: str, trials: int) -> None:
    """See that nothing is missing and nothing is there twice."""
    by_uid = runs_of(server, experiment)
    assert len(by_uid) == trials + 1
    for uid, runs in by_uid.items():
        assert [run.info.status for run in runs] == ["FINISHED"], uid


def waiting(folder: Path) -> int:
    return sum(len(Spool(one).waiting()) for one in (folder / "trifront/spool").glob("*/"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a workspace whose study was told to nobody."""
    folder = tmp_path_factory.mktemp("searched")
    assert trifront(folder, *SEARCH, "--mlflow", "none").code == 0
    return folder


@pytest.fixture(scope="module")
def unheard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a workspace whose study was told to a server that is down."""
    folder = tmp_path_factory.mktemp("unheard")
    dead = f"http://127.0.0.1:{a_free_port()}"
    search = (*SEARCH[:2], "--trials", "2", "--study", "undelivered", "--mlflow", dead)
    ran = trifront(folder, *search)
    assert ran.code == 0
    assert ran.err.splitlines()[-1].endswith("`trifront sync` delivers them")
    return folder


@pytest.fixture
def undelivered(unheard: Path, tmp_path: Path) -> Path:
    """Give a copy of it."""
    shutil.copytree(unheard, tmp_path / "copy")
    return tmp_path / "copy"


def test_nothing_waits_where_nothing_was_searched(tmp_path: Path) -> None:
    ran = trifront(tmp_path, "sync")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("nothing waits")
    assert list(tmp_path.iterdir()) == []


def test_study_that_was_searched_without_mlflow_is_published_once(
    searched: Path, server: Server
) -> None:
    command = ("sync", "--study", "fake", "--mlflow", server.uri)

    first = trifront(searched, *command, "--json")
    second = trifront(searched, *command, "--json")

    assert (first.code, second.code) == (0, 0)
    assert first.synced[0]["delivered"] >= 1 + 4 + 2
    assert first.synced[0]["waiting"] == 0
    assert_whole(server, "fake", 4)


def test_records_of_a_dead_server_wait_and_go_to_where_it_moved(
    undelivered: Path, server: Server
) -> None:
    before = waiting(undelivered)
    still = trifront(undelivered, "sync", "--json")

    moved = trifront(undelivered, "sync", "--mlflow", server.uri)

    assert (still.code, moved.code) == (1, 0)
    assert still.synced[0]["waiting"] == before > 0
    assert "Connection refused" in still.synced[0]["problem"]
    assert f"{before} delivered, 0 were there already, 0 waiting" in moved.out
    assert_whole(server, "undelivered", 2)


def test_usual_mlflow_of_the_environment_takes_over_nothing_that_waits_for_another(
    undelivered: Path, server: Server
) -> None:
    before = waiting(undelivered)

    ran = trifront(undelivered, "sync", "--json", TRIFRONT_MLFLOW=server.uri)

    assert ran.code == 1
    assert [one["waiting"] for one in ran.synced] == [before]
    assert waiting(undelivered) == before


def test_of_two_dead_servers_the_one_that_moved_must_be_named(
    undelivered: Path, server: Server
) -> None:
    other = f"http://127.0.0.1:{a_free_port()}"
    (spool,) = (undelivered / "trifront/spool").glob("*/")
    again = destination_of(other, Workspace(root=undelivered / "trifront"))
    shutil.copytree(spool, again.folder)
    (again.folder / "destination.json").unlink()
    again.create()
    before = waiting(undelivered)

    unnamed = trifront(undelivered, "sync", "--mlflow", server.uri)
    named = trifront(undelivered, "sync", "--mlflow", server.uri, "--from", other)

    assert (unnamed.code, named.code) == (1, 0)
    assert other in unnamed.err
    assert "--from" in unnamed.err
    assert waiting(undelivered) == before // 2


def test_from_without_a_place_to_go_is_refused(tmp_path: Path) -> None:
    ran = trifront(tmp_path, "sync", "--from", "http://old")

    assert ran.code == 1
    assert "--from needs --mlflow" in ran.err


def test_record_that_was_edited_is_told_of_and_the_others_are_delivered(
    undelivered: Path, server: Server
) -> None:
    (spool,) = (undelivered / "trifront/spool").glob("*/waiting")
    edited = next(one for one in sorted(spool.iterdir()) if "-trial-" in one.name)
    (edited / "envelope.json").write_text('{"version": 9}')

    ran = trifront(undelivered, "sync", "--mlflow", server.uri, "--json")

    refused = ran.synced[0]["refused"]
    whys = {one["record"].partition("-")[2]: one["why"] for one in refused}
    assert ran.code == 1
    assert "is of version 9, this trifront reads 1" in whys[edited.name.partition("-")[2]]
    assert not [label for label in whys if label.startswith(("search", "end"))]


def test_destination_that_cannot_be_read_is_told_of(undelivered: Path) -> None:
    (file,) = (undelivered / "trifront/spool").glob("*/destination.json")
    file.write_text("{}")

    ran = trifront(undelivered, "sync")

    assert ran.code == 1
    assert "destination.json does not say which MLflow" in ran.err


def test_unknown_study_is_refused(searched: Path) -> None:
    ran = trifront(searched, "sync", "--study", "nobody")

    assert ran.code == 1
    assert "there is no study 'nobody'" in ran.err
