import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from optimizer.errors import WorkspaceError
from optimizer.workspace import Workspace, load_blocks, save_blocks, write_atomically, writing
from trials.measurement import Block

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


@given(BLOCKS)
@settings(deadline=None)  # the first call imports what reads Parquet
def test_blocks_are_read_back_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block]
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "trial.npz"

    save_blocks(tuple(blocks), path)

    for written, read in zip(blocks, load_blocks(path), strict=True):
        assert (written.start_s, written.window_s) == (read.start_s, read.window_s)
        assert written.batch_size == read.batch_size
        np.testing.assert_array_equal(written.latencies_s, read.latencies_s)


def test_blocks_of_another_format_are_refused_with_the_mend(tmp_path: Path) -> None:
    facts = json.dumps({"format": 2, "blocks": []})
    table = pa.table({"block": [0], "latency_s": [0.1]})
    path = tmp_path / "blocks.parquet"
    parquet.write_table(table.replace_schema_metadata({"trifront": facts}), path)

    with pytest.raises(WorkspaceError, match="is of format 2, this trifront reads 1") as caught:
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


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_damaged_blocks_are_one_line_with_the_mend(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "blocks.parquet"
    path.write_bytes(content)

    with pytest.raises(WorkspaceError, match="damaged") as caught:
        load_blocks(path)

    assert "\n" not in str(caught.value)
    assert caught.value.hint


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
