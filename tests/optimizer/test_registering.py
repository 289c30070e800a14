"""Exports in MLflow's model registry: once each, with files that outlive runs."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from real_exports import measured_case
from tracking_fakes import OwnMlflow, a_server, a_trial, own_mlflow
from untraced import untraced

from optimizer.errors import BundleError, TrackingError, UnavailableError, UsageError
from optimizer.registering import register, registry_at
from optimizer.tracking.registry import BELOW, FINGERPRINT
from optimizer.verification.bundle import open_bundle
from optimizer.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """An export, and the MLflow that is to hear of it."""

    folder: Path
    own: OwnMlflow

    def versions(self, name: str = "digits") -> "list[ModelVersion]":
        return list(self.own.client.search_model_versions(f"name = '{name}'"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    return measured_case(root).export(root / "deploy").folder


@pytest.fixture
def deployed(exported: Path, tmp_path: Path) -> Deployed:
    return Deployed(folder=exported, own=own_mlflow(tmp_path / "trifront"))


def downloaded(uri: str, tracking_uri: str, folder: Path) -> Path:
    """Download a version as its users do, with MLflow's own tool."""
    subprocess.run(
        [sys.executable, "-m", "mlflow", "artifacts", "download", "-u", uri, "-d", str(folder)],
        env=untraced() | {"MLFLOW_TRACKING_URI": tracking_uri},
        check=True,
        capture_output=True,
    )
    return folder / BELOW


def test_version_says_what_was_measured_with_intervals(deployed: Deployed) -> None:
    made = register(deployed.folder, deployed.own.destination, name="digits")

    (version,) = deployed.versions()
    manifest = open_bundle(deployed.folder).manifest
    latency = manifest.metrics["latency_p50_ms"]
    assert (made.uri, made.is_new) == ("models:/digits/1", True)
    assert version.source == f"models:/{made.model_id}"
    assert version.tags["latency_p50_ms"] == repr(latency.value)
    assert version.tags["latency_p50_ms.low"] == repr(latency.low)
    assert version.tags["trial_uid"] == manifest.trial.uid
    assert manifest.deployment.variant in str(version.description)


def test_files_come_back_from_the_registry_whole(deployed: Deployed, tmp_path: Path) -> None:
    made = register(deployed.folder, deployed.own.destination, name="digits")

    got = downloaded(made.uri, deployed.own.destination.uri, tmp_path)

    assert open_bundle(got) == replace(open_bundle(deployed.folder), folder=got.resolve())


def test_registering_twice_makes_one_version(deployed: Deployed) -> None:
    first = register(deployed.folder, deployed.own.destination, name="digits")
    second = register(deployed.folder, deployed.own.destination, name="digits")

    assert second == replace(first, is_new=False)
    assert len(deployed.versions()) == 1


def test_version_is_linked_to_the_run_of_its_trial_and_outlives_it(deployed: Deployed) -> None:
    uid = open_bundle(deployed.folder).manifest.trial.uid
    deployed.own.publish(a_trial(uid))

    made = register(deployed.folder, deployed.own.destination, name="digits")

    run = deployed.own.run(uid)
    assert run.outputs is not None
    assert [one.model_id for one in run.outputs.model_outputs] == [made.model_id]
    deployed.own.client.delete_run(run.info.run_id)
    assert deployed.own.client.get_logged_model(made.model_id).status == "READY"


class DiesAt:
    """An MLflow client that dies at one of its calls, as if the process had been killed."""

    def __init__(self, client: Any, fatal: int) -> None:
        self._client = client
        self._left = fatal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def call(*args: object, **options: object) -> object:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
            return found(*args, **options)

        return call


def test_registering_that_was_killed_at_any_step_is_finished_by_the_next(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = list(killed_at_each_step(deployed, monkeypatch))

    made = register(deployed.folder, deployed.own.destination, name="digits")

    assert len(steps) > 6
    assert (made.version, made.is_new) == (1, False)
    assert len(deployed.versions()) == 1
    experiments = [one.experiment_id for one in deployed.own.client.search_experiments()]
    models = deployed.own.client.search_logged_models(experiments)
    assert [model.tags[FINGERPRINT] for model in models] == [
        deployed.versions()[0].tags[FINGERPRINT]
    ]


def killed_at_each_step(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Register again and again, dying one call later each time, until it comes to its end."""
    import optimizer.tracking.client as opening

    open_client: Callable[..., Any] = opening.open_client
    for fatal in range(100):
        with monkeypatch.context() as patch:
            patch.setattr(
                opening, "open_client", lambda where, at=fatal: DiesAt(open_client(where), at)
            )
            try:
                register(deployed.folder, deployed.own.destination, name="digits")
            except KeyboardInterrupt:
                yield fatal
            else:
                return


def test_default_mlflow_of_a_notebook_stays_what_it_was(deployed: Deployed) -> None:
    before = mlflow.get_tracking_uri()

    register(deployed.folder, deployed.own.destination, name="digits")

    assert mlflow.get_tracking_uri() == before


def test_server_registers_too(exported: Path, tmp_path: Path) -> None:
    with a_server(tmp_path / "server") as server:
        workspace = Workspace(root=tmp_path / "trifront")
        workspace.create()

        made = register(exported, registry_at(server.uri, workspace), name=None)
        got = downloaded(made.uri, server.uri, tmp_path)

        assert open_bundle(got).fingerprint == open_bundle(exported).fingerprint


def test_export_with_a_changed_byte_is_not_registered(deployed: Deployed, tmp_path: Path) -> None:
    folder = measured_case(tmp_path).export(tmp_path / "changed").folder
    (folder / "README.md").write_text("better than it is")

    with pytest.raises(BundleError, match=r"README\.md"):
        register(folder, deployed.own.destination, name="digits")

    assert deployed.own.client.search_registered_models() == []


@pytest.mark.parametrize("name", ["a/b", "", "it's", "x:y"])
def test_name_that_mlflow_would_not_take_is_refused(deployed: Deployed, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        register(deployed.folder, deployed.own.destination, name=name)


def test_registry_of_no_mlflow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no registry"):
        registry_at("none", Workspace(root=tmp_path))


def test_server_that_is_down_is_said_so(exported: Path, tmp_path: Path) -> None:
    destination = registry_at("http://127.0.0.1:9", Workspace(root=tmp_path))

    with pytest.raises(UnavailableError, match="refused") as caught:
        register(exported, destination, name="digits")

    assert isinstance(caught.value, TrackingError)
    assert "server runs" in caught.value.hint


class SomebodyElse:
    """An MLflow client that is overtaken: another makes the same version a moment before."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create_model_version(self, *args: object, **options: object) -> object:
        self._client.create_model_version(*args, **options)
        return self._client.create_model_version(*args, **options)


def test_of_two_that_register_at_once_the_earlier_version_stays(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optimizer.tracking.client as opening

    open_client: Callable[..., Any] = opening.open_client
    monkeypatch.setattr(opening, "open_client", lambda where: SomebodyElse(open_client(where)))

    made = register(deployed.folder, deployed.own.destination, name="digits")

    assert made.version == 1
    assert [int(version.version) for version in deployed.versions()] == [1]
