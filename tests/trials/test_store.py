import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trials.errors import StoreError
from trials.store.entries import key_from_parts
from trials.store.locks import locked
from trials.store.store import Obtained, Store

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
LARGE = 10**9

RACER = """
import os, sys, time
from pathlib import Path
from trials.store.store import Store

def make(path):
    with Path(sys.argv[2]).open("a") as log:
        log.write(f"{os.getpid()}\\n")
    time.sleep(0.3)
    path.write_text("made")

Path(sys.argv[2] + f".{os.getpid()}.ready").touch()
while not Path(sys.argv[2] + ".go").exists():
    time.sleep(0.005)
print(Store(Path(sys.argv[1]), limit_bytes=10**9).obtain("engine", {"a": 1}, make).made)
"""
BUSY = """
import sys, time
from pathlib import Path
from trials.store.store import Store

def make(path):
    path.write_text("half")
    print("making", flush=True)
    time.sleep(60)

Store(Path(sys.argv[1]), limit_bytes=10**9).obtain("engine", {"a": 1}, make)
"""
FULL = """
import resource, sys
from pathlib import Path
from trials.errors import StoreError
from trials.store.store import Store

limits = resource.getrlimit(resource.RLIMIT_FSIZE)
store = Store(Path(sys.argv[1]), limit_bytes=10**9)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
try:
    store.obtain("engine", {"a": 1}, lambda path: path.write_bytes(bytes(2000)))
except StoreError as error:
    print(error)
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
"""
PUT = """
import sys
from pathlib import Path
from trials.store.store import Store

store = Store(Path(sys.argv[1]), limit_bytes=10**9)
for name in sys.argv[2:]:
    store.obtain("engine", {"name": name}, lambda path: path.write_bytes(bytes(100)))
"""


def opened(root: Path, limit_bytes: int = LARGE) -> Store:
    return Store(root / "store", limit_bytes=limit_bytes)


def writes(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def raises(error: Exception) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    return make


def started(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def put_elsewhere(store: Store, *names: str) -> None:
    """Store 100 bytes under each name in a process that then ends, so that no pin remains."""
    subprocess.run([sys.executable, "-c", PUT, str(store.root), *names], check=True)


def leftovers(store: Store) -> list[Path]:
    return [path for path in (store.root / "processes").rglob("*") if path.name == "payload"]


def names_in(store: Store) -> list[str]:
    return [json.loads(entry.parts)["name"] for entry in store.list()]


def test_second_obtain_finds_what_the_first_made_and_its_cost(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        time.sleep(0.02)
        path.write_bytes(b"plan")

    first = opened(tmp_path).obtain("engine", {"a": 1}, make)
    second = opened(tmp_path).obtain("engine", {"a": 1}, raises(AssertionError()))

    assert (first.made, second.made) == (True, False)
    assert second.seconds == first.seconds >= 0.02
    assert second.entry.path.read_bytes() == b"plan"
    assert second.entry.size_bytes == 4


def test_opening_a_store_touches_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)

    assert store.find("engine", "0" * 64) is None
    assert (store.list(), store.verify()) == ((), ())
    assert store.prune(None, everything=True).entries == 0
    assert not store.root.exists()


@given(parts=st.dictionaries(st.text(), JSON, max_size=4))
def test_key_does_not_depend_on_the_order_of_parts(parts: dict[str, object]) -> None:
    backwards = dict(reversed(parts.items()))

    assert key_from_parts("engine", backwards) == key_from_parts("engine", parts)


@given(parts=st.dictionaries(st.text(), JSON, max_size=4), name=st.text(), value=JSON)
def test_any_changed_part_changes_the_key(
    parts: dict[str, object], name: str, value: object
) -> None:
    changed = parts | {name: value}

    same = json.dumps(changed, sort_keys=True) == json.dumps(parts, sort_keys=True)
    assert (key_from_parts("engine", changed) == key_from_parts("engine", parts)) == same


def test_kinds_do_not_share_keys() -> None:
    assert key_from_parts("engine", {}) != key_from_parts("model", {})


def test_part_that_is_not_a_number_has_no_key() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        key_from_parts("engine", {"a": float("nan")})


def test_maker_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    store = opened(tmp_path)

    with pytest.raises(KeyError, match="model"):
        store.obtain("engine", {"a": 1}, raises(KeyError("model")))

    assert store.list() == ()
    assert leftovers(store) == []


def test_maker_that_writes_beside_its_file_is_a_bug(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        path.write_bytes(b"graph")
        path.with_name("weights").write_bytes(b"external")

    with pytest.raises(RuntimeError, match="must write one file"):
        opened(tmp_path).obtain("model", {"a": 1}, make)


@pytest.mark.parametrize("damaged", [b"plan!", b"plaN", b"pl", b""])
def test_damaged_payload_is_rebuilt_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    entry = opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan")).entry
    entry.path.write_bytes(damaged)

    with caplog.at_level(logging.WARNING):
        again = opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan"))

    assert again.made
    assert again.entry.path.read_bytes() == b"plan"
    assert "is corrupt, will be rebuilt" in caplog.text


def test_payload_damaged_after_its_first_use_is_noticed_at_the_next(tmp_path: Path) -> None:
    store = opened(tmp_path)
    entry = store.obtain("engine", {"a": 1}, writes(b"plan")).entry
    assert store.find("engine", entry.key) is not None

    entry.path.write_bytes(b"plaN")

    assert store.find("engine", entry.key) is None


@pytest.mark.parametrize("record", ["", "{}", "[1]", '{"format": 99}', "\0"])
def test_entry_without_a_readable_record_is_rebuilt(tmp_path: Path, record: str) -> None:
    entry = opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan")).entry
    entry.path.with_name("entry.json").write_text(record)

    assert opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan")).made


def test_entry_moved_under_another_key_is_not_believed(tmp_path: Path) -> None:
    store = opened(tmp_path)
    folder = store.obtain("engine", {"a": 1}, writes(b"plan")).entry.path.parent
    other = key_from_parts("engine", {"a": 2})
    (store.root / "engine" / other[:2]).mkdir(exist_ok=True)
    folder.rename(store.root / "engine" / other[:2] / other)

    assert opened(tmp_path).find("engine", other) is None


def test_verify_names_the_damaged_and_removes_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.obtain("engine", {"a": 1}, writes(b"sound"))
    bad = store.obtain("engine", {"a": 2}, writes(b"plan")).entry
    bad.path.write_bytes(b"plaN")

    (corrupt,) = store.verify()

    assert (corrupt.key, corrupt.problem) == (bad.key, "the payload's checksum does not match")
    assert len(store.list()) == 2


def test_list_passes_over_what_it_cannot_read_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path)
    entry = store.obtain("engine", {"a": 1}, writes(b"plan")).entry
    entry.path.with_name("entry.json").unlink()

    listed = store.list()

    assert listed == ()
    assert "entry.json is missing" in caplog.text
    assert [corrupt.key for corrupt in store.verify()] == [entry.key]


def test_lock_is_held_by_one_at_a_time_though_its_file_comes_and_goes(tmp_path: Path) -> None:
    inside: list[int] = []
    seen: list[int] = []

    def enter(name: int) -> None:
        for _ in range(50):
            with locked(tmp_path / "lock"):
                inside.append(name)
                seen.append(len(inside))
                inside.remove(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(4)))

    assert seen == [1] * 200


def test_two_processes_racing_for_one_key_make_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    racers = [started(RACER, tmp_path / "store", log) for _ in range(2)]
    while len(list(tmp_path.glob("log.*.ready"))) < 2:
        time.sleep(0.01)

    Path(f"{log}.go").touch()
    made = sorted(racer.communicate()[0].strip() for racer in racers)

    assert made == ["False", "True"]
    assert len(log.read_text().splitlines()) == 1


def test_killed_maker_leaves_no_entry_and_the_next_process_sweeps(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with started(BUSY, store.root) as maker:
        assert maker.stdout is not None
        maker.stdout.readline()
        assert len(leftovers(store)) == 1
        maker.send_signal(signal.SIGKILL)

    obtained = store.obtain("engine", {"a": 1}, writes(b"plan"))

    assert obtained.made
    assert leftovers(store) == []


def test_unfinished_work_of_a_living_process_is_not_swept(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with started(BUSY, store.root) as maker:
        assert maker.stdout is not None
        maker.stdout.readline()

        store.prune(None, everything=True)
        remaining = leftovers(store)
        maker.kill()

    assert len(remaining) == 1


def test_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    store = opened(tmp_path, limit_bytes=250)
    put_elsewhere(store, "a", "b", "c")
    put_elsewhere(store, "a")

    pruned = store.prune(None, everything=False)

    assert (pruned.entries, pruned.size_bytes) == (1, 100)
    assert names_in(store) == ["c", "a"]


def test_new_entry_evicts_the_oldest_beyond_the_limit(tmp_path: Path) -> None:
    store = opened(tmp_path, limit_bytes=250)
    put_elsewhere(store, "a", "b")

    store.obtain("engine", {"name": "c"}, writes(bytes(100)))

    assert names_in(store) == ["b", "c"]


def test_entry_in_use_by_a_living_process_is_not_evicted(tmp_path: Path) -> None:
    user, other = opened(tmp_path), opened(tmp_path, limit_bytes=0)
    entry = user.obtain("engine", {"name": "a"}, writes(b"plan")).entry

    pruned = other.prune(None, everything=True)

    assert pruned.entries == 0
    assert entry.path.exists()


def test_entry_too_large_for_the_limit_is_kept_while_it_is_used(tmp_path: Path) -> None:
    entry = opened(tmp_path, limit_bytes=1).obtain("engine", {"a": 1}, writes(b"plan")).entry

    assert entry.path.exists()


def test_long_search_pins_its_models_but_not_every_engine(tmp_path: Path) -> None:
    store = opened(tmp_path)
    model = store.obtain("model", {"name": "m"}, writes(b"onnx")).entry
    engines = [store.obtain("engine", {"name": str(i)}, writes(b"plan")).entry for i in range(20)]

    opened(tmp_path).prune(0, everything=False)

    assert model.path.exists()
    assert [engine.path.exists() for engine in engines] == [False] * 4 + [True] * 16


def test_unused_store_can_be_emptied(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put_elsewhere(store, "a", "b")

    assert store.prune(None, everything=True).entries == 2
    assert store.list() == ()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_disk_that_fills_while_making_is_one_clear_line(tmp_path: Path, code: int) -> None:
    store = opened(tmp_path)

    with pytest.raises(StoreError, match=r"no space left for the engine store .* store prune`"):
        store.obtain("engine", {"a": 1}, raises(OSError(code, os.strerror(code))))

    assert leftovers(store) == []


def test_limit_on_file_size_is_reported_by_the_real_kernel(tmp_path: Path) -> None:
    """The nearest thing to a full disk that needs no privilege."""
    with started(FULL, tmp_path / "store") as process:
        output, _ = process.communicate()

    assert output.startswith("no space left for the engine store")


def test_other_faults_of_a_maker_are_not_blamed_on_the_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        opened(tmp_path).obtain("engine", {"a": 1}, raises(FileNotFoundError("labels.npy")))


def test_store_below_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")

    with pytest.raises(StoreError, match=r"the engine store .* cannot be used: .*"):
        opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_read_only_store_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)

    with pytest.raises(StoreError, match="cannot be written"):
        opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan"))


def test_store_on_a_file_system_that_is_read_only_says_so() -> None:
    with pytest.raises(StoreError, match="the engine store /proc/sys/store cannot"):
        Store(Path("/proc/sys/store"), limit_bytes=1).obtain("engine", {}, writes(b"plan"))


def test_payload_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    entry = opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan")).entry
    outside = tmp_path / "outside"
    entry.path.rename(outside)
    entry.path.symlink_to(outside)

    assert opened(tmp_path).find("engine", entry.key) is None
    assert outside.read_bytes() == b"plan"


def test_entry_that_is_a_link_is_removed_without_its_target(tmp_path: Path) -> None:
    entry = opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan")).entry
    outside = tmp_path / "outside"
    entry.path.parent.rename(outside)
    entry.path.parent.symlink_to(outside, target_is_directory=True)

    again = opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan"))

    assert again.made
    assert (outside / "payload").exists()


def test_kind_that_is_a_link_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    (tmp_path / "outside").mkdir()
    store.root.mkdir()
    (store.root / "engine").symlink_to(tmp_path / "outside", target_is_directory=True)

    with pytest.raises(StoreError, match="leads out of the engine store"):
        store.obtain("engine", {"a": 1}, writes(b"plan"))


def test_foreign_folders_among_those_of_processes_are_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "store" / "processes" / "notes"
    foreign.mkdir(parents=True)

    opened(tmp_path).obtain("engine", {"a": 1}, writes(b"plan"))

    assert foreign.is_dir()


def test_locks_leave_no_files_behind(tmp_path: Path) -> None:
    store = opened(tmp_path)

    obtained: Obtained = store.obtain("engine", {"a": 1}, writes(b"plan"))

    assert obtained.made
    assert list((store.root / "locks").iterdir()) == []
    assert not (store.root / "lock").exists()


def test_locks_of_killed_makers_are_swept_and_held_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    dead, alive = tmp_path / "locks" / "engine-dead", tmp_path / "locks" / "engine-alive"
    dead.touch()

    with locked(alive):
        Store(tmp_path, limit_bytes=10**6).prune(None, everything=False)

        assert not dead.exists()
        assert alive.exists()


def test_shelf_outlives_pruning_to_a_size_and_goes_with_everything(tmp_path: Path) -> None:
    store = opened(tmp_path)
    shelf = store.shelf("tensorrt")
    shelf.mkdir(parents=True)
    (shelf / "gpu.timings").write_bytes(b"timings")

    store.prune(0, everything=False)
    assert (shelf / "gpu.timings").exists()
    assert (store.list(), store.verify()) == ((), ())

    store.prune(None, everything=True)
    assert not shelf.exists()
