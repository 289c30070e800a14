"""What happens to an export when the process dies, the disk is full, or another one is as fast.

A process of its own exports with a hook on what it asks of the operating system (Python's audit
events) and kills itself with SIGKILL at the n-th such moment, for every n that there is.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from real_exports import Case, measured_case

from optimizer.errors import ExportError, WorkspaceError
from optimizer.export.bundle import BundleFormat
from optimizer.export.export import write_export
from optimizer.verification.bundle import open_bundle

# forks a child per moment, so that importing is paid for once; prints how many moments there are
KILLING = """
import os, pickle, signal, sys
from pathlib import Path
from optimizer.export.bundle import BundleFormat
from optimizer.export.export import write_export
from optimizer.verification.bundle import open_bundle

gathered = pickle.loads(Path(sys.argv[1]).read_bytes())
root = Path(sys.argv[2])

def killed_at(moment, folder):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if any(isinstance(one, (str, Path)) and str(root) in str(one) for one in arguments):
            seen += 1  # open, mkdir, rename, listdir and the like, in the place of the export
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    write_export(gathered, BundleFormat(), folder, by="Ada")
    os._exit(0)

moment, whole = 1, 0
while killed_at(moment, folder := root / "d"):
    if folder.exists():
        open_bundle(folder)  # there whole
        whole += 1
        import shutil; shutil.rmtree(folder)
    moment += 1
open_bundle(folder)  # what dead ones left did not disturb it
print(moment - 1, whole, *sorted(path.name for path in root.iterdir()))
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return measured_case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def gathered(case: Case, tmp_path: Path) -> Path:
    """What an export is written from, for another process."""
    path = tmp_path / "gathered.pickle"
    path.write_bytes(pickle.dumps(case.gathered()))
    return path


def test_export_killed_at_any_moment_is_there_whole_or_not_at_all(
    gathered: Path, tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir()
    command = [sys.executable, "-c", KILLING, str(gathered), str(tmp_path / "place")]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    assert ran.returncode == 0, ran.stderr
    moments, whole, *left = ran.stdout.split()
    assert int(moments) > 30
    assert int(whole) >= 1  # killed behind the rename
    assert left == ["d"]


EXPORTING = """
import pickle, sys
from pathlib import Path
from optimizer.errors import ExportError
from optimizer.export.bundle import BundleFormat
from optimizer.export.export import write_export

gathered = pickle.loads(Path(sys.argv[1]).read_bytes())
print("ready", flush=True)
sys.stdin.readline()
try:
    write_export(gathered, BundleFormat(), Path(sys.argv[2]), by=sys.argv[3])
    print("won")
except ExportError as error:
    print("refused:", error)
"""


def test_of_two_exports_to_one_place_one_wins_and_the_other_says_so(
    gathered: Path, tmp_path: Path
) -> None:
    place = tmp_path / "d"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", EXPORTING, str(gathered), str(place), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("Ada", "Bo", "Cy")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"

    said = sorted(racer.communicate("go\n", timeout=100)[0].strip() for racer in racers)

    assert said == [f"refused: {place} is not empty"] * 2 + ["won"]
    open_bundle(place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "gathered.pickle"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system that holds half of an export."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    return folder


def test_full_disk_leaves_nothing_and_says_what_to_do(case: Case, small_disk: Path) -> None:
    gathered = case.gathered()
    try:
        with pytest.raises(ExportError, match=r"cannot write .*: No space left on device") as e:
            write_export(gathered, BundleFormat(), small_disk / "a" / "d", by="Ada")

        assert list(small_disk.iterdir()) == []
        assert "--to" in e.value.hint
    finally:
        subprocess.run(["umount", str(small_disk)], check=True)  # noqa: S607 - likewise


def test_engine_that_vanishes_leaves_nothing(case: Case, tmp_path: Path) -> None:
    gathered = case.gathered()
    gathered.model.rename(tmp_path / "elsewhere")
    before = set(tmp_path.iterdir())

    with pytest.raises(ExportError, match="No such file or directory"):
        write_export(gathered, BundleFormat(), tmp_path / "d", by="Ada")

    assert set(tmp_path.iterdir()) == before
    (tmp_path / "elsewhere").rename(gathered.model)


def test_folder_that_may_not_be_written_is_refused_with_the_mend(
    case: Case, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ExportError, match=r"File exists|Not a directory") as caught:
        write_export(case.gathered(), BundleFormat(), tmp_path / "file" / "d", by="Ada")

    assert "--to" in caught.value.hint


def test_place_inside_an_export_is_refused_and_the_export_stays_whole(
    case: Case, tmp_path: Path
) -> None:
    write_export(case.gathered(), BundleFormat(), tmp_path / "d", by="Ada")

    with pytest.raises(ExportError, match="lies in the export") as caught:
        write_export(case.gathered(), BundleFormat(), tmp_path / "d" / "more" / "e", by="Ada")

    open_bundle(tmp_path / "d")
    assert "beside" in caught.value.hint


def test_damaged_raw_blocks_are_not_sealed_as_if_they_were_measured(case: Case) -> None:
    sound = case.blocks.read_bytes()
    case.blocks.write_bytes(sound[:-9])

    with pytest.raises(WorkspaceError, match="damaged"):
        case.gathered()

    case.blocks.write_bytes(sound)
