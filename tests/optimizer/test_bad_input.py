"""What a user gets wrong, or a machine refuses, through the real command line.

Each time: one line that names what is wrong and how to mend it, the exit code that says what kind
of wrong it is, no traceback, and nothing written.
"""

import io
import os
import pickle
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from onnx import (
    NodeProto,
    TensorProto,
    external_data_helper,
    helper,
    load_model,
    numpy_helper,
    save_model,
)
from optuna.trial import TrialState
from search_fakes import SPACE

from optimizer.cli import main

QUICK = ("--trials", "2", "--sampler", "random", "--mlflow", "none")
RUN = "from optimizer.cli import main; main()"

ORT = """
version: 1
name: digits
backend: ort
task: {kind: classification, data: DATA}
variants: [{name: small, onnx: MODEL}]
axes: {batch_size: [1, 2]}
measure: {max_s: 0.1, block_s: 0.001, block_requests: 5, warmup_s: 0}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of a command.

    Attributes:
        written: Paths below the working folder that it made, changed or removed.
    """

    code: int
    out: str
    err: str
    written: tuple[str, ...]


def trifront(*arguments: str, folder: Path) -> Ran:
    """Run the command line in this process, as its script does, from a folder."""
    before, out, err, code = tree(folder), io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name in ("TRIFRONT_WORKSPACE", "TRIFRONT_STORAGE", "TRIFRONT_MLFLOW"):
            patch.delenv(name, raising=False)
        patch.setattr(sys, "argv", ["trifront", *arguments])
        patch.chdir(folder)
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Ran(
        code=code,
        out=out.getvalue(),
        err=err.getvalue(),
        written=changed(before, tree(folder)),
    )


def trifront_process(*arguments: str, folder: Path, start: tuple[str, ...] = ()) -> Ran:
    """Run the command line as a process of its own, started by the command ``start``."""
    before = tree(folder)
    # a process that may not write cannot keep a record of its coverage either
    environment = {name: it for name, it in os.environ.items() if "COVERAGE" not in name}
    ended = subprocess.run(
        [*(start or (sys.executable, "-c", RUN)), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ran(
        code=ended.returncode,
        out=ended.stdout,
        err=ended.stderr,
        written=changed(before, tree(folder)),
    )


def tree(folder: Path) -> dict[str, bytes | None]:
    """Read a folder: the content of files, None for folders, nothing behind links."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() and not path.is_symlink() else None
        )
        for path in folder.rglob("*")
    }


def changed(before: dict[str, bytes | None], after: dict[str, bytes | None]) -> tuple[str, ...]:
    paths = before.keys() | after.keys()
    missing = b"not there"
    return tuple(
        sorted(one for one in paths if before.get(one, missing) != after.get(one, missing))
    )


def refusal(ran: Ran, *, code: int = 1) -> str:
    """Return the one line that says what is wrong, with the hint below it."""
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    lines = ran.err.splitlines()
    first = [index for index, line in enumerate(lines) if line.startswith("trifront: ")]
    assert len(first) == 1, ran.err
    said, hints = lines[first[0]], lines[first[0] + 1 :]
    assert len(hints) <= 1, ran.err
    assert all(hint.startswith("  ") for hint in hints)
    return "\n".join((said, *hints))


def mentions(text: str, *words: str) -> None:
    assert [word for word in words if word not in text] == [], text


# --- space files


WRONG_SPACES = {
    "an unknown key": (
        ("axes:", "axess: {}\naxes:"),
        ("axess: is an unknown key", "did you mean 'axes'?"),
    ),
    "an unknown value": (
        ("[fp32, int8]", "[fp32, fp23]"),
        ("axes.precision[1]: 'fp23'", "did you mean 'fp32'?"),
    ),
    "an axis that the backend ignores": (
        ("threads: [1, 2]", "thread: [1, 2]"),
        ("thread", "threads"),
    ),
    "an empty axis": (
        ("batch_size: [1, 2, 4, 8]", "batch_size: []"),
        ("axes.batch_size: is empty", "give at least 1"),
    ),
    "an axis that is no list": (
        ("batch_size: [1, 2, 4, 8]", "batch_size: fast"),
        ("axes.batch_size: 'fast' is not a list", "write one such as"),
    ),
    "an axis of the wrong type": (
        ("batch_size: [1, 2, 4, 8]", "batch_size: [1, 2.5]"),
        ("axes.batch_size[1]: 2.5 is not a whole number", "write one such as 1"),
    ),
    "a rule that names no axis": (
        ("concurrency * threads <= 4", "speed <= 4"),
        ("rules[0]", "'speed'", "use one of: batch_size"),
    ),
    "a rule that allows nothing": (
        ("concurrency * threads <= 4", "concurrency > 400"),
        ("rules[0]", "'concurrency > 400' alone forbids all", "loosen it"),
    ),
    "rules that together allow nothing": (
        ('["concurrency * threads <= 4"]', '["threads > 1", "threads < 2"]'),
        ("rules: no deployment passes", "loosen one"),
    ),
}


@pytest.mark.parametrize("wrong", WRONG_SPACES)
@pytest.mark.parametrize("command", [("check",), ("search", *QUICK)])
def test_space_that_cannot_be_meant_is_refused_with_its_key_and_the_mend(
    wrong: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    (old, new), words = WRONG_SPACES[wrong]
    assert old in SPACE
    (tmp_path / "mine.yaml").write_text(SPACE.replace(old, new), encoding="utf-8")

    ran = trifront(*command, "mine.yaml", folder=tmp_path)

    mentions(refusal(ran), "mine.yaml: ", *words)
    assert ran.written == ()


def test_space_that_is_not_there_is_refused_with_what_ships(tmp_path: Path) -> None:
    ran = trifront("search", "fakke", folder=tmp_path)

    mentions(refusal(ran), "fakke: there is no such space file", "did you mean 'fake'?")
    assert ran.written == ()


def test_space_that_is_misspelt_is_refused_with_the_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text(SPACE, encoding="utf-8")

    for wrong in ("digts.yaml", "digits", "digits.yml"):
        ran = trifront("check", wrong, folder=tmp_path)

        mentions(refusal(ran), f"{wrong}: there is no such", "did you mean 'digits.yaml'?")


# --- models


WEIGHTS = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)


def write_model(
    path: Path,
    *,
    node: NodeProto | None = None,
    weights: NDArray[np.float32] = WEIGHTS,
    opset: int = 18,
) -> Path:
    """Write a linear classifier of 4 classes."""
    node = node or helper.make_node("Gemm", ["x", "w"], ["y"])
    features = weights.shape[0]
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", features))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4))],
        [numpy_helper.from_array(weights, "w")],
    )
    domains = {"": opset, **({node.domain: 1} if node.domain else {})}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def cut_short(path: Path) -> None:
    content = write_model(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def of_a_custom_operator(path: Path) -> None:
    write_model(path, node=helper.make_node("Magic", ["x", "w"], ["y"], domain="my.ops"))


def with_data_at(path: Path, location: str) -> None:
    """Write a model whose weights are to be read from ``location``."""
    model = load_model(write_model(path))
    external_data_helper.convert_model_to_external_data(
        model, location="weights.bin", size_threshold=0
    )
    save_model(model, path)
    model = load_model(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


def with_data_behind_a_link(path: Path) -> None:
    with_data_at(path, "link.bin")
    (path.parent / "link.bin").symlink_to(path.parent.parent / "secret.bin")


WRONG_MODELS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "cut short": (cut_short, ("is cut short", "export or copy it again")),
    "not ONNX": (
        lambda path: path.write_text("I am no model\n" * 20),
        ("is not an ONNX file", "export or copy it again"),
    ),
    "empty": (lambda path: path.write_bytes(b""), ("holds no operator", "export it again")),
    "of an opset of the future": (
        lambda path: write_model(path, opset=99),
        ("opset 99", "export with an older opset, such as 18"),
    ),
    "of a custom operator": (
        of_a_custom_operator,
        ("my.ops::Magic", "export the model with ONNX's own operators"),
    ),
    "with data that climb out of its folder": (
        lambda path: with_data_at(path, "../secret.bin"),
        ("'../secret.bin'", "outside the model's folder", "save the model again"),
    ),
    "with data behind a link that leads out": (
        with_data_behind_a_link,
        ("'link.bin'", "outside the model's folder", "save the model again"),
    ),
}


def write_data(path: Path, **changed_arrays: NDArray[np.generic]) -> None:
    """Write 60 samples that :func:`write_model`'s model classifies without a fault."""
    inputs = np.random.default_rng(1).standard_normal((60, 16)).astype(np.float32)
    arrays: dict[str, NDArray[np.generic]] = {
        "inputs": inputs,
        "labels": (inputs @ WEIGHTS).argmax(axis=1),
    }
    np.savez(path, allow_pickle=True, **arrays | changed_arrays)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a model, its data and a space of both, next to a file of somebody else."""
    (tmp_path / "secret.bin").write_bytes(bytes(WEIGHTS.nbytes))
    folder = tmp_path / "mine"
    folder.mkdir()
    write_model(folder / "model.onnx")
    write_data(folder / "data.npz")
    write_space(folder)
    return folder


def write_space(folder: Path, *, data: str = "{path: data.npz}") -> None:
    text = ORT.replace("MODEL", "model.onnx").replace("DATA", data)
    (folder / "mine.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("wrong", WRONG_MODELS)
@pytest.mark.parametrize(
    "command",
    [("search", "mine.yaml", *QUICK), ("init", "model.onnx", "--data", "data.npz")],
    ids=("search", "init"),
)
def test_model_that_cannot_be_used_is_refused_by_its_path(
    wrong: str, command: tuple[str, ...], mine: Path
) -> None:
    make, words = WRONG_MODELS[wrong]
    make(mine / "model.onnx")

    ran = trifront(*command, folder=mine)

    mentions(refusal(ran), "model.onnx: ", *words)
    assert ran.written == ()


def test_model_that_is_not_there_is_refused_with_its_key(mine: Path) -> None:
    (mine / "model.onnx").rename(mine / "model2.onnx")

    ran = trifront("search", "mine.yaml", *QUICK, folder=mine)

    mentions(refusal(ran), "mine.yaml: variants[0].onnx", "'model.onnx'", "'model2.onnx'")
    assert ran.written == ()


def test_model_that_the_samples_do_not_feed_is_refused_before_anything_is_built(
    mine: Path,
) -> None:
    write_model(mine / "model.onnx", weights=np.ones((32, 4), np.float32))

    ran = trifront("search", "mine.yaml", *QUICK, folder=mine)

    mentions(refusal(ran), "mine.yaml: variants.small", "(n, 32)", "(1, 16)", "store them so")
    assert ran.written == ()


def test_deployment_whose_outputs_are_nan_is_infeasible_and_an_empty_front_exits_with_3(
    mine: Path,
) -> None:
    write_model(mine / "model.onnx", weights=np.full((16, 4), np.nan, np.float32))

    ran = trifront("search", "mine.yaml", *QUICK, folder=mine)

    assert ran.code == 3
    mentions(ran.out, "2 infeasible", "output 'y' are NaN")
    assert "Traceback" not in ran.err


# --- data


def test_labels_of_another_length_are_refused(mine: Path) -> None:
    write_data(mine / "data.npz", labels=np.zeros(57, np.int64))

    ran = trifront("search", "mine.yaml", *QUICK, folder=mine)

    mentions(refusal(ran), "data.npz: ", "'labels' has length 57", "the inputs have 60", "store")
    assert ran.written == ()


def test_label_beyond_the_classes_of_a_model_is_refused_before_the_search(mine: Path) -> None:
    labels = np.zeros(60, np.int64)
    labels[:40] = 4  # in every split, so also in the one that is only looked at in the end
    write_data(mine / "data.npz", labels=labels)

    ran = trifront("search", "mine.yaml", *QUICK, folder=mine)

    mentions(refusal(ran), "mine.yaml: variants.small", "is 4", "has 4 classes", "mend the labels")
    assert ran.written == ()


def test_inputs_that_hold_nan_are_refused_with_the_first(mine: Path) -> None:
    inputs = np.zeros((60, 16), np.float32)
    inputs[7, 3] = np.nan
    write_data(mine / "data.npz", inputs=inputs)

    ran = trifront("search", "mine.yaml", *QUICK, folder=mine)

    mentions(refusal(ran), "data.npz: ", "'inputs' holds NaN", "inputs[7]", "mend or remove")
    assert ran.written == ()


def test_splits_that_share_samples_are_refused_with_the_first(mine: Path) -> None:
    shared = np.arange(60 * 16, dtype=np.float32).reshape(60, 16)
    labels = np.zeros(60, np.int64)
    write_data(mine / "search.npz", inputs=shared, labels=labels)
    write_data(mine / "report.npz", inputs=shared[::-1] + 16 * 57, labels=labels)
    write_space(mine, data="{search: search.npz, report: report.npz}")

    ran = trifront("search", "mine.yaml", *QUICK, folder=mine)

    mentions(
        refusal(ran),
        "task.data.report",
        "shares 3 samples with the search",
        "search[59] = report[57]",
    )
    assert ran.written == ()


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def pickled_array(path: Path, payload: Payload) -> None:
    write_data(path, inputs=np.array([payload] * 60, dtype=object))


def pickled_file(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps(payload))


def pickled_member(path: Path, payload: Payload) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("inputs.npy", "labels.npy"):
            archive.writestr(name, pickle.dumps(payload))


@pytest.mark.parametrize("pickled", [pickled_array, pickled_file, pickled_member])
def test_pickles_in_a_data_file_are_refused_and_never_unpickled(
    pickled: Callable[[Path, Payload], None], mine: Path
) -> None:
    trap = mine.parent / "unpickled"
    pickled(mine / "data.npz", Payload(trap))

    ran = trifront("search", "mine.yaml", *QUICK, folder=mine)

    mentions(refusal(ran), "data.npz: ")
    assert ran.written == ()
    assert not trap.exists()
    pickle.loads(pickle.dumps(Payload(trap)))  # noqa: S301 - our own, to see that the trap works
    assert trap.exists()


# --- paths from outside


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a searched workspace; copy it before changing it."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    ran = trifront("search", "tiny.yaml", *QUICK, folder=folder)
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def studied(searched: Path, tmp_path: Path) -> Path:
    """A folder of one's own with a space file and the workspace of a finished search."""
    return shutil.copytree(searched, tmp_path / "studied")


def test_stored_engine_that_is_a_link_is_built_anew_and_not_followed(studied: Path) -> None:
    secret = studied.parent / "secret"
    secret.write_text("not yours", encoding="utf-8")
    for payload in (studied / "trifront/store/engine").glob("*/*/payload"):
        payload.unlink()
        payload.symlink_to(secret)

    ran = trifront("export", "knee", "--to", "bundle", folder=studied)

    assert ran.code == 0, ran.err
    assert "not yours" not in (studied / "bundle/engine.json").read_text(encoding="utf-8")
    assert secret.read_text(encoding="utf-8") == "not yours"


def test_store_that_leads_out_of_its_folder_is_refused(studied: Path) -> None:
    elsewhere = studied.parent / "elsewhere"
    engines = studied / "trifront/store/engine"
    engines.rename(elsewhere)
    engines.symlink_to(elsewhere)
    before = tree(elsewhere)

    ran = trifront("export", "knee", "--to", "bundle", folder=studied)

    mentions(refusal(ran), "store/engine", "leads out of the engine store", "remove that link")
    assert not (studied / "bundle").exists()
    assert changed(before, tree(elsewhere)) == ()


def test_study_whose_identity_would_name_a_file_elsewhere_is_refused(studied: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{studied / 'trifront/studies.db'}")
    study = optuna.load_study(study_name="tiny", storage=storage)
    study.set_user_attr("trifront:id", "../../../elsewhere")
    storage.remove_session()

    ran = trifront("search", "tiny.yaml", "--mlflow", "none", folder=studied)

    mentions(refusal(ran), "study 'tiny'", "'../../../elsewhere'", "--study")
    assert not list(studied.parent.rglob("*elsewhere*"))


@pytest.mark.parametrize(
    ("found", "words"), [(2, "is of format 2, this trifront reads 1"), (None, "was not made by")]
)
def test_study_of_another_format_is_refused_with_the_mend(
    studied: Path, found: int | None, words: str
) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{studied / 'trifront/studies.db'}")
    study = optuna.load_study(study_name="tiny", storage=storage)
    study.set_user_attr("trifront:format", found)
    storage.remove_session()

    ran = trifront("front", folder=studied)

    mentions(refusal(ran), "study 'tiny'", words, "the trifront that made it", "--study")


def test_study_name_that_looks_like_a_path_writes_nothing_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")

    ran = trifront("search", "tiny.yaml", *QUICK[:4], "--study", "../../elsewhere", folder=folder)

    assert ran.code == 0, ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]
    assert {Path(one).parts[0] for one in ran.written} == {"trifront"}


# --- storages


def closed_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


WRONG_STORAGES = {
    "no URL": ("me:secret@nonsense", ("'nonsense'", "sqlite:///studies.db")),
    "an unknown database": ("nonsense://me:secret@h/x", ("nonsense://me:***@h/x", "looks like")),
    "a missing driver": (
        "postgresql+pg8000://me:secret@h/x",
        ("postgresql+pg8000://me:***@h/x", "pg8000", "install its driver"),
    ),
    "a database in memory": ("sqlite://", ("sqlite://", "keeps nothing", "name a file")),
}


@pytest.mark.parametrize("wrong", WRONG_STORAGES)
@pytest.mark.parametrize("command", [("search", "fake", *QUICK), ("front",), ("studies",)])
def test_storage_that_cannot_be_meant_is_refused_without_its_password(
    wrong: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    url, words = WRONG_STORAGES[wrong]

    ran = trifront(*command, "--storage", url, folder=tmp_path)

    mentions(refusal(ran), "study storage", *words)
    assert "secret" not in ran.err
    assert ran.written == ()


@pytest.mark.parametrize("command", [("search", "fake", *QUICK), ("front",)])
def test_database_server_that_does_not_answer_is_refused_before_anything_is_written(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("psycopg", reason="needs the `postgresql` extra")
    port = closed_port()

    ran = trifront(
        *command, "--storage", f"postgresql://me:secret@127.0.0.1:{port}/x", folder=tmp_path
    )

    mentions(refusal(ran), f"postgresql://me:***@127.0.0.1:{port}/x", "refused", "server runs")
    assert "secret" not in ran.err
    assert ran.written == ()


def test_sqlite_file_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ran = trifront("search", "fake", *QUICK, "--storage", "sqlite:///no/x.db", folder=tmp_path)

    mentions(refusal(ran), "sqlite:///no/x.db", "there is no folder no", "make the folder")
    assert ran.written == ()


@pytest.mark.parametrize(
    "command", [("front",), ("show", "0"), ("studies",), ("dashboard",), ("ui",)]
)
def test_reading_a_storage_that_is_not_there_does_not_make_it(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    ran = trifront(*command, "--storage", "sqlite:///studies.db", folder=tmp_path)

    mentions(refusal(ran), "there is no study storage studies.db", "begin a search")
    assert ran.written == ()


@contextmanager
def held_exclusively(database: Path) -> Iterator[None]:
    """Let another process hold an SQLite database, as one that hangs in a transaction does."""
    code = (
        "import sqlite3, sys; held = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "held.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            assert holder.stdout.readline() == "held\n"
            yield
        finally:
            holder.stdin.close()


@pytest.mark.parametrize("command", [("search", "tiny.yaml", *QUICK), ("front",)])
def test_locked_database_is_told_of_in_bounded_time_and_left_alone(
    command: tuple[str, ...], studied: Path
) -> None:
    url = "sqlite:///trifront/studies.db?timeout=0.2"
    started = time.monotonic()

    with held_exclusively(studied / "trifront/studies.db"):
        ran = trifront(*command, "--storage", url, folder=studied)

    mentions(refusal(ran), "trifront/studies.db", "database is locked", "end it")
    assert time.monotonic() - started < 30  # SQLite's patience of a minute was not used
    assert [one for one in ran.written if "store/" not in one] == []


# --- disks


def running_trials(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT count(*) FROM trials WHERE state = ?"
        (count,) = connection.execute(query, (TrialState.RUNNING.name,)).fetchone()
        return int(count)


def mounted(disk: Path, options: str, *arguments: str) -> bool:
    """Mount a file system in memory; tell whether that is allowed here."""
    mount = shutil.which("mount")
    return (
        mount is not None
        and subprocess.run(
            [mount, *arguments, "-o", options, str(disk)], capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB, large enough to begin a search."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounted(disk, "size=300k", "-t", "tmpfs", "tmpfs"):
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield disk
    finally:
        umount = shutil.which("umount")
        assert umount is not None
        subprocess.run([umount, "--lazy", str(disk)], check=True)


def test_full_disk_ends_the_search_and_with_free_space_the_same_command_goes_on(
    small_disk: Path,
) -> None:
    command = ("search", "fake", "--trials", "6", "--sampler", "random", "--mlflow", "none")

    full = trifront_process(*command, folder=small_disk)  # its death is part of the story
    assert mounted(small_disk, "remount,size=30m")
    again = trifront(*command, folder=small_disk)

    mentions(refusal(full), "trifront", "free some space")
    assert again.code == 0, again.err
    assert running_trials(small_disk / "trifront/studies.db") == 0
    assert not list(small_disk.rglob(".*.parquet.*"))


def test_files_that_may_not_grow_end_the_search_with_one_line(tmp_path: Path) -> None:
    """A quota acts as a full disk does, and needs no rights to be tried."""
    bytes_ = 60_000  # a fresh study database has 110 kB
    limited = (
        "import resource;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_}, {resource.RLIM_INFINITY}));{RUN}"
    )

    ran = trifront_process(
        "search", "fake", *QUICK, folder=tmp_path, start=(sys.executable, "-c", limited)
    )

    mentions(refusal(ran), "studies.db", "quota")


def without_privileges() -> tuple[str, ...]:
    """Return how to start a process that file modes bind, which they do not for root."""
    if os.geteuid() != 0:
        return ()
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
    if shutil.which("setpriv") is None or subprocess.run([*drop, "true"], check=False).returncode:
        pytest.skip("root cannot give its privileges away here")
    return drop


def test_read_only_workspace_is_refused_for_writing_and_read_all_the_same(studied: Path) -> None:
    start = (*without_privileges(), sys.executable, "-c", RUN)
    folders = [studied, *(path for path in studied.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)

    searched = trifront_process("search", "tiny.yaml", *QUICK, folder=studied, start=start)
    looked = trifront_process("front", folder=studied, start=start)
    for path in folders:
        path.chmod(0o755)

    mentions(refusal(searched), "cannot write", "studied/trifront", "--workspace")
    assert looked.code == 0, looked.err
    assert (searched.written, looked.written) == ((), ())


def test_file_in_the_place_of_the_workspace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trifront").write_text("mine", encoding="utf-8")

    ran = trifront("search", "fake", *QUICK, folder=tmp_path)

    mentions(refusal(ran), "trifront", "a file is in the way", "--workspace")
    assert ran.written == ()


# --- studies and exports


def test_study_of_another_space_is_refused_with_the_key_that_differs(studied: Path) -> None:
    other = SPACE.replace("threads: [1, 2]", "threads: [1]")
    (studied / "tiny.yaml").write_text(other, encoding="utf-8")

    ran = trifront("search", "tiny.yaml", *QUICK, folder=studied)

    mentions(refusal(ran), "study 'tiny'", "tiny.yaml", "axes.threads: [1, 2]", "--study NAME")
    assert [one for one in ran.written if "store/" not in one] == []


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        ("99", ("study 'tiny' has no ended trial 99", "0 to 1", "trifront front")),
        ("best:speed", ("'speed' is no objective", "latency_p99_ms")),
        ("best", ("'best' names no trial", "`knee`")),
    ],
)
@pytest.mark.parametrize("command", [("show",), ("export", "--to", "bundle")])
def test_unknown_trial_is_refused_with_what_there_is(
    trial: str, words: tuple[str, ...], command: tuple[str, ...], studied: Path
) -> None:
    ran = trifront(*command, trial, folder=studied)

    mentions(refusal(ran), *words)
    assert ran.written == ()


def test_unknown_study_is_refused_with_those_that_there_are(studied: Path) -> None:
    ran = trifront("front", "--study", "tinny", folder=studied)

    mentions(refusal(ran), "'tinny'", "tiny")
    assert ran.written == ()


def test_export_into_a_folder_that_is_not_empty_is_refused_and_changes_nothing(
    studied: Path,
) -> None:
    (studied / "full").mkdir()
    (studied / "full/notes.txt").write_text("mine", encoding="utf-8")

    ran = trifront("export", "knee", "--to", "full", folder=studied)

    mentions(refusal(ran), "full", "not empty", "--to")
    assert ran.written == ()


@pytest.mark.parametrize(
    "command",
    [
        ("front",),
        ("show", "0"),
        ("export", "knee", "--to", "d"),
        ("studies",),
        ("dashboard",),
        ("ui",),
    ],
)
def test_looking_before_any_search_says_how_to_begin_one(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    ran = trifront(*command, folder=tmp_path)

    mentions(refusal(ran), "there is no study in", "trifront search fake", "--workspace")
    assert ran.written == ()


# --- MLflow


def test_mlflow_that_cannot_be_reached_costs_a_note_and_not_the_search(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{closed_port()}"

    ran = trifront("search", "fake", *QUICK[:4], "--mlflow", uri, folder=tmp_path)

    assert ran.code == 0, ran.err
    note = ran.err.splitlines()[-1]
    mentions(note, f"MLflow {uri}", "refused", "records wait on the disk", "`trifront sync`")


@pytest.mark.parametrize("uri", ["nonsense://h/x", "some-folder"])
def test_mlflow_uri_that_means_nothing_is_refused_before_the_search(
    uri: str, tmp_path: Path
) -> None:
    ran = trifront("search", "fake", "--mlflow", uri, folder=tmp_path)

    mentions(refusal(ran), f"MLflow {uri}", "sqlite:///mlflow.db")
    assert ran.written == ()


# --- options


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--time", "nonsense", "'nonsense' is no"),
        ("--time", "0s", "'0s' is no"),
        ("--sampler", "magic", "'tpe'"),
        ("--trials", "0", "--trials"),
        ("--trials", "many", "--trials"),
    ],
)
def test_option_that_means_nothing_is_wrong_usage(
    option: str, value: str, word: str, tmp_path: Path
) -> None:
    ran = trifront("search", "fake", option, value, folder=tmp_path)

    assert ran.code == 2
    mentions(ran.err, option, word)
    assert "Traceback" not in ran.err
    assert ran.written == ()


def test_gp_without_torch_is_refused_with_what_to_install(tmp_path: Path) -> None:
    without_torch = f"import sys; sys.modules['torch'] = None; {RUN}"

    ran = trifront_process(
        *("search", "fake", "--sampler", "gp"),
        folder=tmp_path,
        start=(sys.executable, "-c", without_torch),
    )

    mentions(refusal(ran), "gp sampler needs torch", "trifront[torch]", "--sampler tpe")
    assert ran.written == ()
