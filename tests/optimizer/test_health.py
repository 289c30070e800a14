"""What `trifront doctor` finds, and that looking changes nothing."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from nvml_fake import MadeUpCard, MadeUpNvml

from optimizer.health import Finding, Grade, findings_at, gpu_findings
from optimizer.wiring import place_at


class Healthy(BaseHTTPRequestHandler):
    """Answers as an MLflow server does."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Healthy) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def found(root: Path, *, storage: str | None = None, mlflow: str | None = None) -> list[Finding]:
    return list(findings_at(place_at(root, storage), mlflow=mlflow))


def named(findings: list[Finding], name: str) -> Finding:
    return next(one for one in findings if one.name == name)


def test_sound_machine_has_nothing_broken(tmp_path: Path) -> None:
    findings = found(tmp_path / "new")

    assert [one for one in findings if one.grade is Grade.BROKEN] == []
    assert {"packages", "backends", "machine", "places"} == {one.topic for one in findings}
    assert named(findings, "ort").grade is Grade.OK


def test_looking_changes_nothing(tmp_path: Path) -> None:
    found(tmp_path / "new")

    assert list(tmp_path.iterdir()) == []


def test_what_is_not_well_says_what_to_do(tmp_path: Path) -> None:
    findings = found(tmp_path, storage="postgresql://me:secret@127.0.0.1:1/none")

    broken = [one for one in findings if one.grade in (Grade.BROKEN, Grade.WARNING)]
    assert named(findings, "storage").grade is Grade.BROKEN
    assert all(one.mend for one in broken)
    assert "secret" not in "".join(one.detail + one.mend for one in findings)


def test_workspace_with_a_file_in_its_way_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    finding = named(found(tmp_path / "file" / "trifront"), "workspace")

    assert finding.grade is Grade.BROKEN
    assert "--workspace" in finding.mend


def test_mlflow_server_that_answers_is_well(tmp_path: Path, server: str) -> None:
    assert named(found(tmp_path, mlflow=server), "tracking").grade is Grade.OK


@pytest.mark.parametrize(
    ("uri", "problem"),
    [("http://127.0.0.1:1", "refused"), ("htp://host", "no tracking by 'htp'")],
)
def test_mlflow_that_is_out_of_reach_is_broken(tmp_path: Path, uri: str, problem: str) -> None:
    finding = named(found(tmp_path, mlflow=uri), "tracking")

    assert finding.grade is Grade.BROKEN
    assert problem in finding.detail


def test_machine_without_a_gpu_says_so_plainly() -> None:
    (finding,) = gpu_findings(lambda: MadeUpNvml(error="Driver Not Loaded"))

    assert (finding.name, finding.grade, finding.detail) == ("gpu", Grade.ABSENT, "no NVIDIA GPU")


def test_each_gpu_is_described() -> None:
    quiet = MadeUpCard(pids=(), mig=None)
    shared = MadeUpCard(uuid="GPU-2222", pids=(7,))

    first, second = gpu_findings(lambda: MadeUpNvml(quiet, shared))

    assert first.grade is Grade.OK
    assert first.detail == (
        "NVIDIA H100, GPU-1111, compute capability 9.0, driver 580.1, MIG not to be had, "
        "persistence on, processes that compute on it: 0"
    )
    assert second.grade is Grade.WARNING
    assert "others on a GPU take its time" in second.mend


def test_gpu_that_is_cut_into_parts_tells_that_energy_is_absent() -> None:
    (finding,) = gpu_findings(lambda: MadeUpNvml(MadeUpCard(pids=(), mig=1)))

    assert "MIG on" in finding.detail
    assert "energy_per_sample_mj is absent" in finding.mend
