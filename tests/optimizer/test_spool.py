"""What waits on the disk for MLflow: whole or not at all, in order, and nothing that leads out."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_fakes import completed, record_of
from tracking_fakes import DEPLOYMENT, EXPERIMENT, FACTS, a_trial, an_engine, put

from optimizer.errors import TrackingError, WorkspaceError
from optimizer.tracking.ledger import Delivered, Ledger
from optimizer.tracking.messages import (
    Envelope,
    FrontFound,
    VerdictGiven,
    envelope_from_json,
    json_from_envelope,
)
from optimizer.tracking.run_content import content_of_record
from optimizer.tracking.spool import Spool

TESTS = Path(__file__).parents[1]
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tracking_fakes import a_trial, put
from optimizer.tracking.spool import Spool
spool = Spool(Path(sys.argv[1]))
for number in range(int(sys.argv[4])):
    put(spool, a_trial(f"{sys.argv[3]}-{number}"), {"blocks.parquet": b"raw" * 1000})
    print(number, flush=True)
"""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@given(
    latency_ms=st.floats(1e-3, 1e6),
    sps=st.floats(1e-3, 1e9),
    accuracy=st.floats(0, 1),
    number=st.integers(0, 10**6),
)
def test_message_comes_back_as_it_was_written(
    latency_ms: float, sps: float, accuracy: float, number: int
) -> None:
    outcome = completed(DEPLOYMENT, latency_ms=latency_ms, sps=sps, accuracy=accuracy)
    message = content_of_record(record_of(number, outcome), FACTS)
    envelope = Envelope(experiment=EXPERIMENT, message=message)

    back = envelope_from_json(json_from_envelope(envelope), source="a file")

    assert back == envelope


def test_records_wait_in_the_order_in_which_they_were_written(spool: Spool) -> None:
    names = [put(spool, a_trial(f"u-{number}")) for number in range(12)]

    assert spool.waiting() == tuple(names)
    assert spool.labels() == {f"trial-u-{number}" for number in range(12)}


def test_record_is_behind_all_that_wait_also_where_another_process_wrote_them(
    spool: Spool,
) -> None:
    first = put(spool, a_trial("u-1"))
    other = Spool(spool.folder)
    second = put(other, a_trial("u-2"))
    spool.remove(first)

    third = put(spool, VerdictGiven(uid="u-2", metrics=()))

    assert spool.waiting() == (second, third)


def test_file_goes_along_as_a_link_that_outlives_its_source(spool: Spool, tmp_path: Path) -> None:
    """The engine store may evict what a record still needs."""
    source = tmp_path / "payload"
    source.write_bytes(b"an engine")
    name = put(spool, an_engine("e" * 64), {"engine.onnx": source})
    linked = source.stat().st_nlink

    source.unlink()

    assert linked == 2
    assert spool.read(name).file("engine.onnx").read_bytes() == b"an engine"


def test_file_of_another_file_system_is_copied(spool: Spool) -> None:
    elsewhere = Path("/dev/shm", f"trifront-{os.getpid()}")  # noqa: S108 - ours by its number
    if not elsewhere.parent.is_dir() or elsewhere.parent.stat().st_dev == Path.cwd().stat().st_dev:
        pytest.skip("this machine has one file system")
    elsewhere.write_bytes(b"far away")
    try:
        name = put(spool, an_engine("e" * 64), {"engine.onnx": elsewhere})
    finally:
        elsewhere.unlink()

    assert spool.read(name).file("engine.onnx").read_bytes() == b"far away"


@pytest.mark.parametrize("kind", ["symlink", "folder", "nothing"])
def test_what_is_no_file_does_not_go_along_and_leaves_nothing(
    spool: Spool, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "source"
    if kind == "symlink":
        source.symlink_to("/etc/hostname")
    elif kind == "folder":
        source.mkdir()

    with pytest.raises(WorkspaceError):
        put(spool, an_engine("e" * 64), {"engine.onnx": source})

    assert spool.waiting() == ()
    assert not (spool.folder / "drafts").exists()


NAMES = ["../out", "a/../../out", "/etc/passwd", "", ".", "a//b", "a\\b", "a\nb", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_artifact_name_that_leads_elsewhere_is_refused(spool: Spool, name: str) -> None:
    record = put(spool, a_trial("u-1", files=("good",)), {"good": b"x"})
    edit(spool, record, lambda document: document["message"].update(files=[name]))

    with pytest.raises(TrackingError, match="is no name for an artifact") as caught:
        spool.read(record)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["file", "envelope", "record"])
def test_link_in_the_place_of_a_file_is_not_followed(
    spool: Spool, tmp_path: Path, place: str
) -> None:
    record = put(spool, a_trial("u-1", files=("good",)), {"good": b"x"})
    folder = spool.folder / "waiting" / record
    target = {"file": folder / "good", "envelope": folder / "envelope.json", "record": folder}
    target[place].rename(tmp_path / "elsewhere")
    target[place].symlink_to(tmp_path / "elsewhere")

    with pytest.raises(TrackingError, match="is a link, which is not followed"):
        spool.read(record).file("good")


def edit(spool: Spool, record: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record by hand."""
    path = spool.folder / "waiting" / record / "envelope.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda document: document.update(version=2), "is of version 2, this trifront reads 1"),
        (lambda document: document.update(more=1), "more: Unexpected keyword argument"),
        (lambda document: document["message"].update(kind="x"), "message: Input tag 'x'"),
        (lambda document: document["message"].pop("uid"), "message.trial.uid: Field required"),
        (
            lambda document: document["message"].update(metrics=[["a", "NaN"]]),
            "message.trial.metrics.0.1: Input should be a finite number",
        ),
    ],
)
def test_record_that_was_edited_or_is_of_another_version_is_one_clear_line(
    spool: Spool, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    record = put(spool, a_trial("u-1"))
    edit(spool, record, change)

    with pytest.raises(TrackingError) as caught:
        spool.read(record)

    assert complaint in str(caught.value)
    assert str(spool.folder / "waiting" / record) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_half_a_record_is_one_clear_line(spool: Spool) -> None:
    record = put(spool, a_trial("u-1"))
    path = spool.folder / "waiting" / record / "envelope.json"
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(TrackingError, match="is not as it was written: Invalid JSON"):
        spool.read(record)


def test_writer_that_is_killed_leaves_whole_records_only(spool: Spool) -> None:
    command = [sys.executable, "-c", WRITER, str(spool.folder), str(TESTS), "killed", "1000"]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()

    left = [spool.read(name) for name in spool.waiting()]
    after = put(spool, a_trial("next"))

    assert len(left) >= 20
    assert all(len(one.file("blocks.parquet").read_bytes()) == 3000 for one in left)
    assert spool.waiting()[-1] == after
    assert not (spool.folder / "drafts").exists()


def test_processes_that_write_at_once_lose_nothing_and_overwrite_nothing(spool: Spool) -> None:
    command = [sys.executable, "-c", WRITER, str(spool.folder), str(TESTS)]
    writers = [
        subprocess.Popen([*command, name, "30"], stdout=subprocess.DEVNULL)
        for name in ("one", "two", "three")
    ]
    codes = [writer.wait() for writer in writers]

    numbers = [name.partition("-")[0] for name in spool.waiting()]
    assert codes == [0, 0, 0]
    assert len(numbers) == len(set(numbers)) == 90


def test_spool_takes_over_what_waits_in_another_behind_its_own(
    spool: Spool, tmp_path: Path
) -> None:
    other = Spool(tmp_path / "other")
    for uid in ("u-1", "u-2"):
        put(other, a_trial(uid))
    put(spool, FrontFound(uid="f", members=()))

    taken = spool.adopt(other)

    assert taken == 2
    assert other.waiting() == ()
    kinds = [spool.read(name).envelope.message.uid for name in spool.waiting()]
    assert kinds == ["f", "u-1", "u-2"]


def test_ledger_remembers_the_latest_of_each_record(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(Delivered(label="trial-1", result="delivered"))
    ledger.append(Delivered(label="trial-2", result="found", blocks=True))
    ledger.append(Delivered(label="trial-1", result="delivered", blocks=True))

    found = Ledger(tmp_path).read()

    assert {label: entry.blocks for label, entry in found.items()} == {
        "trial-1": True,
        "trial-2": True,
    }


@pytest.mark.parametrize("torn", [b'{"version":1,"lab', b"\xff\xfe", b'{"version":9}\n', b"[]\n"])
def test_torn_line_of_the_ledger_costs_that_line_alone(tmp_path: Path, torn: bytes) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(Delivered(label="before", result="delivered"))
    with (tmp_path / "delivered.jsonl").open("ab") as file:
        file.write(torn)

    ledger.append(Delivered(label="after", result="delivered"))

    assert set(ledger.read()) == {"before", "after"}


def test_ledger_that_was_never_written_is_empty(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "nowhere").read() == {}
