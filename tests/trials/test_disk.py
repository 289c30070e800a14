from pathlib import Path

import pytest

from trials.disk import sync, write_new

OPEN = Path("/proc/self/fd")


def test_new_file_holds_what_was_written_and_has_nothing_beside_it(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"content")

    assert (tmp_path / "file").read_bytes() == b"content"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_file_that_is_there_already_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")

    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"content")

    assert (tmp_path / "file").read_bytes() == b"mine"


def test_nothing_is_written_through_a_link_to_something_else(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FileExistsError):
        write_new(tmp_path / "link", b"content")

    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("follow_symlinks", [True, False])
def test_files_and_folders_are_synced_and_no_descriptor_stays_open(
    tmp_path: Path, *, follow_symlinks: bool
) -> None:
    write_new(tmp_path / "file", b"content")
    before = len(list(OPEN.iterdir()))

    sync(tmp_path / "file", follow_symlinks=follow_symlinks)
    sync(tmp_path, follow_symlinks=follow_symlinks)

    assert len(list(OPEN.iterdir())) == before


def test_link_is_followed_only_where_that_is_meant(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")

    sync(tmp_path / "link")
    with pytest.raises(OSError, match="symbolic links"):
        sync(tmp_path / "link", follow_symlinks=False)


def test_what_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "nothing")
