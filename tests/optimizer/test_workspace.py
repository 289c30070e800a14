import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from optimizer.errors import WorkspaceError
from optimizer.workspace import (
    Workspace,
    load_blocks,
    save_blocks,
    sweep_drafts,
    write_atomically,
    writing,
)
from trials.measurement import Block, BlockOnGpu, DeviceTimes, Stamps

BLOCKS = st.lists(
    st.builds(
        Block,
        start_s=st.floats(0, 1e6),
        window_s=st.floats(1e-3, 10),
        latencies_s=st.lists(st.floats(1e-9, 10), min_size=1).map(np.asarray),
        batch_size=st.integers(1, 512),
    ),
    min_size=1,
    max_size=5,
)


def open_block(generator: np.random.Generator, *, requests: int) -> Block:
    due_s = np.sort(generator.random(requests))
    start_s = due_s + generator.random(requests)
    end_s = start_s + generator.random(requests)
    batch = np.ones(requests, dtype=np.int32)
    return Block(
        start_s=0.0,
        window_s=1.0,
        latencies_s=end_s - due_s,
        batch_size=1,
        stamps=Stamps(due_s=due_s, start_s=start_s, end_s=end_s, batch=batch),
    )


@settings(deadline=None)  # the first one imports PyArrow
@given(BLOCKS)
def test_blocks_are_read_back_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block]
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "trial.npz"

    save_blocks(tuple(blocks), path)

    for written, read in zip(blocks, load_blocks(path), strict=True):
        assert (written.start_s, written.window_s) == (read.start_s, read.window_s)
        assert written.batch_size == read.batch_size
        np.testing.assert_array_equal(written.latencies_s, read.latencies_s)


def document_of(path: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads(parquet.read_schema(path).metadata[b"trifront"])
    return document


GPU = BlockOnGpu(
    begin_s=0.0,
    end_s=1.0,
    begin_j=None,
    end_j=None,
    load_s=1.0,
    samples=1,
    sm_mhz=(None, None),
    memory_mhz=(None, None),
    temperature_c=None,
    memory_bytes=None,
    reasons=0,
    others=0,
    busy_others=0,
    reading_s=0.0,
)
TIMES = DeviceTimes(gpu_s=np.ones(1), enqueue_s=np.ones(1), wall_s=np.ones(1))


@pytest.mark.parametrize(
    ("gpu", "times", "written"), [(None, None, 1), (GPU, None, 2), (None, TIMES, 2)]
)
def test_older_trifront_is_told_of_what_it_cannot_read(
    tmp_path: Path, gpu: BlockOnGpu | None, times: DeviceTimes | None, written: int
) -> None:
    """It would stumble over the key, and say that the file is damaged."""
    block = Block(
        start_s=0.0, window_s=1.0, latencies_s=np.ones(1), batch_size=1, gpu=gpu, device=times
    )

    save_blocks((block,), tmp_path / "blocks.parquet")

    assert document_of(tmp_path / "blocks.parquet")["format"] == written
    assert load_blocks(tmp_path / "blocks.parquet")[0].gpu == gpu


def test_gpu_in_a_file_of_before_there_was_a_format_for_it_is_read(tmp_path: Path) -> None:
    block = Block(start_s=0.0, window_s=1.0, latencies_s=np.ones(1), batch_size=1, gpu=GPU)
    path = tmp_path / "blocks.parquet"
    save_blocks((block,), path)
    facts = json.dumps(document_of(path) | {"format": 1})
    table = parquet.read_table(path).replace_schema_metadata({"trifront": facts})
    parquet.write_table(table, path)

    assert load_blocks(path)[0].gpu == GPU


def test_blocks_of_another_format_are_refused_with_the_mend(tmp_path: Path) -> None:
    facts = json.dumps({"format": 3, "blocks": []})
    table = pa.table({"block": [0], "latency_s": [0.1]})
    path = tmp_path / "blocks.parquet"
    parquet.write_table(table.replace_schema_metadata({"trifront": facts}), path)

    with pytest.raises(
        WorkspaceError, match="is of format 3, this trifront reads up to 2"
    ) as caught:
        load_blocks(path)

    assert "the trifront that wrote it" in caught.value.hint


@pytest.mark.parametrize("facts", [None, {"trifront": "{"}, {"trifront": "[]"}])
def test_parquet_of_somebody_else_is_no_blocks(
    tmp_path: Path, facts: dict[str, str] | None
) -> None:
    path = tmp_path / "blocks.parquet"
    parquet.write_table(pa.table({"a": [1]}).replace_schema_metadata(facts), path)

    with pytest.raises(WorkspaceError, match="holds no raw blocks, or is damaged"):
        load_blocks(path)


BLOCK = Block(start_s=0.5, window_s=0.25, latencies_s=np.geomspace(1e-3, 1e-2, 9), batch_size=4)


@settings(deadline=None)  # likewise
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_changed_bit_of_raw_blocks_is_noticed_or_changes_no_number(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "trial.parquet"
    save_blocks((BLOCK,), path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit

    path.write_bytes(content)

    try:
        (read,) = load_blocks(path)
    except WorkspaceError:
        return  # noticed
    assert (read.start_s, read.window_s, read.batch_size) == (0.5, 0.25, 4)
    np.testing.assert_array_equal(read.latencies_s, BLOCK.latencies_s)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no Parquet at all, but long enough"])
def test_file_that_is_no_parquet_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trial.parquet").write_bytes(content)

    with pytest.raises(
        WorkspaceError, match=r"trial\.parquet holds no raw blocks, or is damaged"
    ) as caught:
        load_blocks(tmp_path / "trial.parquet")

    assert len(str(caught.value).splitlines()) == 1
    assert "intervals" in caught.value.hint


def test_stamps_of_an_open_load_are_read_back_to_the_last_digit(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    blocks = [open_block(generator, requests=requests) for requests in (1, 7, 3)]

    save_blocks(tuple(blocks), tmp_path / "trial.parquet")

    for written, read in zip(blocks, load_blocks(tmp_path / "trial.parquet"), strict=True):
        assert written.stamps is not None
        assert read.stamps is not None
        for name in ("due_s", "start_s", "end_s", "batch"):
            np.testing.assert_array_equal(
                getattr(written.stamps, name), getattr(read.stamps, name), strict=True
            )


def test_times_of_a_device_are_read_back_to_the_last_digit(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    blocks = []
    for requests in (1, 7, 3):
        times = DeviceTimes(
            gpu_s=generator.random(requests),
            enqueue_s=generator.random(requests),
            wall_s=generator.random(requests),
        )
        latencies_s = generator.random(requests)
        blocks.append(
            Block(start_s=0.0, window_s=1.0, latencies_s=latencies_s, batch_size=1, device=times)
        )

    save_blocks(tuple(blocks), tmp_path / "trial.parquet")

    for written, read in zip(blocks, load_blocks(tmp_path / "trial.parquet"), strict=True):
        assert written.device is not None
        assert read.device is not None
        assert read.stamps is None
        for name in ("gpu_s", "enqueue_s", "wall_s"):
            np.testing.assert_array_equal(
                getattr(written.device, name), getattr(read.device, name), strict=True
            )


def test_file_that_cannot_be_written_whole_is_not_there_at_all(tmp_path: Path) -> None:
    target = tmp_path / "front.png"
    target.mkdir()

    with pytest.raises(WorkspaceError, match=r"front\.png"):
        write_atomically(target, b"content")

    assert list(tmp_path.iterdir()) == [target]


# writes until it is killed, in the middle of writing, by a hook on what it asks of the system
KILLED = """
import os, signal, sys
from pathlib import Path
from optimizer.workspace import write_atomically

def hook(event, arguments):
    if event == "os.rename":
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
write_atomically(Path(sys.argv[1]), b"half-written")
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A file whose second writer was killed before it was done."""
    target = tmp_path / "front.png"
    write_atomically(target, b"whole")
    ran = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert ran.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) > 1
    return target


def test_writer_that_is_killed_leaves_the_file_as_it_was_and_the_next_tidies_up(
    killed: Path,
) -> None:
    before = killed.read_bytes()

    write_atomically(killed, b"anew")

    assert before == b"whole"
    assert killed.read_bytes() == b"anew"
    assert list(killed.parent.iterdir()) == [killed]


def test_folder_of_ours_is_swept_of_what_killed_writers_left_alone(killed: Path) -> None:
    (killed.parent / ".hidden").write_text("somebody's", encoding="utf-8")

    sweep_drafts(killed.parent)

    assert {path.name for path in killed.parent.iterdir()} == {"front.png", ".hidden"}
    assert killed.read_bytes() == b"whole"


def test_file_gets_the_permissions_of_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "other").touch()

    write_atomically(tmp_path / "front.png", b"content")

    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_workspace_whose_place_is_taken_by_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file", encoding="utf-8")

    with pytest.raises(WorkspaceError, match="cannot write") as caught:
        Workspace(root=tmp_path / "work").create()

    assert "--workspace" in caught.value.hint


def test_full_disk_is_explained_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="No space left") as caught, writing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert "store prune" in caught.value.hint
