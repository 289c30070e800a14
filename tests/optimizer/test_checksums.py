"""A changed byte is found wherever it is; so is a file that was added, removed or replaced."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.errors import BundleError
from optimizer.export.checksums import SUMS, check_sums, sums_of

FILES = {"manifest.json": b'{"format": 2}\n', "model/1/model.onnx": bytes(range(40)), "a.txt": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported folder, as far as its bytes are concerned."""
    root = tmp_path / "d"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / SUMS).write_text(sums_of(root), encoding="utf-8")
    return root


def test_untouched_folder_is_whole_and_known_by_its_fingerprint(folder: Path) -> None:
    fingerprint = check_sums(folder)

    assert fingerprint == hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()
    assert check_sums(Path(shutil.copytree(folder, folder.with_name("copy")))) == fingerprint


def test_coreutils_read_the_sums(folder: Path) -> None:
    program = shutil.which("sha256sum") or pytest.skip("needs sha256sum of GNU coreutils")

    ran = subprocess.run(
        [program, "--check", "--strict", SUMS],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stdout.count(": OK")) == (0, len(FILES))


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_byte_is_found_anywhere(folder: Path, data: st.DataObject) -> None:
    """In the sums too, where another letter case or line end would mean the same to coreutils."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    path = data.draw(st.sampled_from(sorted(paths)))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))

    path.write_bytes(content[:at] + bytes([other]) + content[at + 1 :])

    try:
        with pytest.raises(BundleError):
            check_sums(folder)
    finally:
        path.write_bytes(content)


def rename(folder: Path) -> None:
    (folder / "a.txt").rename(folder / "b.txt")


def link(folder: Path) -> None:
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to("/dev/null")


def replace_by_same_content(folder: Path) -> None:
    target = folder.parent / "elsewhere.onnx"
    (folder / "model/1/model.onnx").rename(target)
    (folder / "model/1/model.onnx").symlink_to(target)


def upwards(folder: Path) -> None:
    outside = folder.parent / "secret"
    outside.write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    with (folder / SUMS).open("a", encoding="utf-8") as file:
        file.write(f"{digest}  ../secret\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: (one / "extra.txt").touch(), "extra.txt was added after the export"),
        (lambda one: (one / "a.txt").unlink(), "'a.txt' is in SHA256SUMS and not in the folder"),
        (rename, "'a.txt' is in SHA256SUMS and not in the folder"),
        (lambda one: (one / "a.txt").write_bytes(b"x"), "a.txt is not what SHA256SUMS says"),
        (lambda one: (one / "empty").mkdir(), "is an empty folder"),
        (lambda one: os.mkfifo(one / "pipe"), "pipe: is no regular file"),
        (link, "a.txt: is a symbolic link"),
        (replace_by_same_content, "model.onnx: is a symbolic link"),
        (lambda one: (one / "l").symlink_to("a.txt"), "l: is a symbolic link"),
        (lambda one: (one / SUMS).unlink(), "has no file SHA256SUMS"),
        (lambda one: (one / SUMS).write_bytes(b""), "a.txt was added after the export"),
        (lambda one: (one / SUMS).write_bytes(b"\xff\n"), "'' is in SHA256SUMS"),
        (upwards, "'../secret' is in SHA256SUMS and not in the folder"),
        (lambda one: os.close(os.open(os.fsencode(one) + b"/\xff", os.O_CREAT)), "was added"),
    ],
)
def test_change_is_told_in_one_line(
    folder: Path, change: Callable[[Path], object], words: str
) -> None:
    change(folder)

    with pytest.raises(BundleError) as caught:
        check_sums(folder)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # a terminal can show it


@pytest.mark.parametrize(
    "spelling", [str.upper, lambda text: text.replace("\n", "\r\n"), lambda text: text + "\n"]
)
def test_sums_that_mean_the_same_but_are_other_bytes_are_refused(
    folder: Path, spelling: Callable[[str], str]
) -> None:
    text = (folder / SUMS).read_text(encoding="utf-8")
    (folder / SUMS).write_bytes(spelling(text).encode())

    with pytest.raises(BundleError):
        check_sums(folder)
