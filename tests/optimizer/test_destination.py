"""Which MLflow a URI means, and what its complaints say; passwords are in neither."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from requests import HTTPError, Response
from requests.exceptions import ConnectionError as NotConnected
from requests.exceptions import RetryError

from optimizer.errors import TrackingError, UnavailableError, UsageError
from optimizer.tracking.complaints import tracking_errors
from optimizer.tracking.destination import (
    check_uri,
    destination_folders,
    destination_in,
    destination_of,
)
from optimizer.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path / "trifront")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://host:5000", "http://me:secret@host:5000"),
        ("http://host:5000", "http://host:5000/"),
        ("http://me:old@host", "http://you:new@host"),
        ("postgresql://me:x@host/db", "postgresql://host/db"),
        ("postgresql://host/db?password=a", "postgresql://host/db?password=b"),
    ],
)
def test_same_server_is_the_same_destination_whoever_logs_in(
    workspace: Workspace, one: str, other: str
) -> None:
    assert destination_of(one, workspace).folder == destination_of(other, workspace).folder


@pytest.mark.parametrize(
    "other", ["http://host:5001", "https://host:5000", "http://host:5000/ml", None]
)
def test_another_server_is_another_destination(workspace: Workspace, other: str | None) -> None:
    one = destination_of("http://host:5000", workspace)

    assert one.folder != destination_of(other, workspace).folder


def test_own_database_is_the_same_destination_by_any_name_and_after_a_move(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.create()
    monkeypatch.chdir(workspace.root)
    moved = Workspace(root=workspace.root.with_name("moved"))

    names = [
        destination_of(uri, workspace).folder.name
        for uri in (None, "sqlite:///mlflow.db", f"sqlite:///{workspace.mlflow}")
    ]

    assert {*names, destination_of(None, moved).folder.name} == {names[0]}


def test_path_of_a_database_is_no_password(workspace: Workspace) -> None:
    uri = "sqlite:////home/me@work/mlflow.db"

    assert destination_of(uri, workspace).name == uri


def test_nothing_secret_is_written(workspace: Workspace) -> None:
    destination = destination_of("http://me:hunter2@host:5000?token=abc", workspace)
    destination.create()

    (folder,) = destination_folders(workspace)
    written = (folder / "destination.json").read_text()
    assert "hunter2" not in written
    assert "abc" not in written
    assert destination_in(folder, workspace).name == destination.name


def test_own_destination_is_found_again(workspace: Workspace) -> None:
    destination_of(None, workspace).create()

    (folder,) = destination_folders(workspace)

    assert destination_in(folder, workspace) == destination_of(None, workspace)


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"version": 2, "mlflow": null}', '{"version": 1, "mlflow": "http://elsewhere"}'],
)
def test_destination_whose_name_is_damaged_is_one_clear_line(
    workspace: Workspace, content: str
) -> None:
    destination_of("http://host", workspace).create()
    (folder,) = destination_folders(workspace)
    (folder / "destination.json").write_text(content)

    with pytest.raises(TrackingError) as caught:
        destination_in(folder, workspace)

    assert "destination.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_folders_that_are_not_ours_and_links_are_passed_over(workspace: Workspace) -> None:
    workspace.spool.mkdir(parents=True)
    (workspace.spool / "notes").mkdir()
    (workspace.spool / ("a" * 16)).symlink_to(workspace.root)

    assert list(destination_folders(workspace)) == []


@pytest.mark.parametrize("uri", [None, "", "http://h", "sqlite:///x.db", "postgresql+psycopg://h"])
def test_uri_that_means_something_passes(uri: str | None) -> None:
    check_uri(uri)


@pytest.mark.parametrize("uri", ["carrier-pigeon://coop", "./mlruns"])
def test_uri_that_means_nothing_is_refused(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_uri(uri)

    assert "sqlite:///mlflow.db" in caught.value.hint


def http_error(code: int) -> Exception:
    """Make what an upload throws that was answered so."""
    response = Response()
    response.status_code = code
    return HTTPError(f"{code} Server Error", response=response)


def refused(code: str) -> Exception:
    """Make what a call throws that was answered in MLflow's own words."""
    from mlflow.exceptions import RestException

    answer = {"error_code": code, "message": "no"}
    return RestException(answer)  # type: ignore[no-untyped-call]


def wrapped(error: Exception) -> Exception:
    """Wrap as MLflow does, which keeps the cause as context alone."""
    from mlflow.exceptions import MlflowException

    outer = MlflowException(f"API request failed with exception {error}")
    outer.__context__ = error
    return outer


def full() -> Exception:
    return OSError(errno.ENOSPC, "No space left on device", "/x")


def missing() -> Exception:
    return OSError(errno.ENOENT, "No such file or directory", "/x")


OF_ALL: list[tuple[Callable[[], Exception], str]] = [
    (lambda: wrapped(NotConnected("[Errno 111] Connection refused")), "Connection refused"),
    (lambda: wrapped(NotConnected("Read timed out. (timeout=30)")), "timed out"),
    (lambda: NotConnected("aborted"), "aborted"),
    (lambda: http_error(401), "401"),
    (lambda: http_error(503), "503"),
    (lambda: wrapped(RetryError("too many 503 error responses")), "too many 503 error responses"),
    (lambda: refused("UNAUTHENTICATED"), "UNAUTHENTICATED"),
    (full, "No space left on device: /x"),
]
OF_ONE: list[tuple[Callable[[], Exception], str]] = [
    (lambda: http_error(500), "500"),
    (lambda: http_error(413), "413"),
    (lambda: wrapped(RetryError("too many 500 error responses")), "too many 500 error responses"),
    (lambda: refused("INVALID_PARAMETER_VALUE"), "INVALID_PARAMETER_VALUE"),
    (missing, "No such file or directory: /x"),
]


@pytest.mark.parametrize(
    ("make", "said", "of_all"),
    [*((*case, True) for case in OF_ALL), *((*case, False) for case in OF_ONE)],
)
def test_complaint_is_one_line_and_its_kind_says_whose_fault_it_is(
    workspace: Workspace, make: Callable[[], Exception], said: str, *, of_all: bool
) -> None:
    destination = destination_of("http://me:hunter2@host:5000", workspace)

    with pytest.raises(TrackingError) as caught, tracking_errors(destination):
        raise make()

    assert isinstance(caught.value, UnavailableError) is of_all
    assert str(caught.value).startswith("MLflow http://host:5000: ")
    assert said in str(caught.value)
    assert caught.value.hint


def test_complaint_that_repeats_the_uri_does_not_repeat_the_password(workspace: Workspace) -> None:
    uri = "postgresql://me:hunter2@host/db"

    with pytest.raises(TrackingError) as caught, tracking_errors(destination_of(uri, workspace)):
        raise wrapped(OSError(f"to {uri}\nwith more lines"))

    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_password_is_told_with_the_way_to_log_in(workspace: Workspace) -> None:
    with (
        pytest.raises(UnavailableError) as caught,
        tracking_errors(destination_of("http://h", workspace)),
    ):
        raise http_error(401)

    assert "MLFLOW_TRACKING_PASSWORD" in caught.value.hint
