import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.errors import WorkspaceError
from optimizer.workspace import Workspace, load_blocks, save_blocks, write_atomically, writing
from trials.measurement import Block, Stamps

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


@settings(deadline=None)  # the first example imports pyarrow
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


def test_file_that_cannot_be_written_whole_is_not_there_at_all(tmp_path: Path) -> None:
    target = tmp_path / "front.png"
    target.mkdir()

    with pytest.raises(WorkspaceError, match=r"front\.png"):
        write_atomically(target, b"content")

    assert list(tmp_path.iterdir()) == [target]


def test_workspace_whose_place_is_taken_by_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file", encoding="utf-8")

    with pytest.raises(WorkspaceError, match="cannot write") as caught:
        Workspace(root=tmp_path / "work").create()

    assert "--workspace" in caught.value.hint


def test_full_disk_is_explained_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="No space left") as caught, writing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert "store prune" in caught.value.hint
