"""Provoke each fault for real, and print what was lost and what the next command says.

Every fault strikes a copy of one small workspace: two trials searched, one exported. What is lost
is counted, never assumed: outcomes in the database and raw blocks that are not as before, once the
fault is mended where it can be (the disk has space again, the file is back). What a killed process
leaves is the subject of ``scripts/kill_walk.py``, what MLflow may do that of
``tests/optimizer/test_mlflow_faults.py``.

    python scripts/fault_table.py [WORD ...]

Only the faults whose name holds one of the words are provoked. Those of the file system mount a
small one, which takes root.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

SPACE = """
version: 1
name: tiny
backend: fake
task: {kind: classification}
variants:
  - {name: small, fake: {work_ms: 0.1, accuracy: 0.80, size_mb: 1}}
  - {name: large, fake: {work_ms: 1.0, accuracy: 0.95, size_mb: 9}}
axes: {precision: [fp32, int8], batch_size: [1, 2], concurrency: [1, 2]}
measure: {target_p50: 0.5, target_p99: 0.9, target_throughput: 0.5, block_s: 0.005,
          block_requests: 2, warmup_s: 0, max_s: 0.2, deadline_s: 60}
"""
SEARCH = "search tiny.yaml --sampler random --mlflow none"
BEFORE = (f"{SEARCH} --trials 2", "export knee --to out")
GOES_ON = f"{SEARCH} --trials 3"
LIMIT_S = 120
FREE_BYTES = (0, 8_192, 32_768, 131_072)  # left on the disk that fills up


@dataclass(frozen=True, slots=True)
class Scene:
    """A copy of the workspace, and commands in it."""

    folder: Path

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command in a process of its own."""
        trifront = str(Path(sys.executable).with_name("trifront"))
        return subprocess.Popen(
            [trifront, *command.split()],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def says(self, command: str) -> str:
        """Run a command; return its verb, its exit status and, where it failed, what it said."""
        return answer_of(command, self.start(command))

    def change(self, statement: str) -> None:
        """Change the study's database."""
        with closing(sqlite3.connect(self.study)) as database, database:
            database.execute(statement)

    @property
    def study(self) -> Path:
        """The study's database."""
        return self.folder / "trifront" / "studies.db"

    def files(self, pattern: str) -> list[Path]:
        """Find files of the workspace."""
        return sorted((self.folder / "trifront").glob(pattern))


def answer_of(command: str, process: subprocess.Popen[str]) -> str:
    """Wait for a command; see :meth:`Scene.says`."""
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"{command.split(maxsplit=1)[0]} HANGS"
    lines = [line for line in said.splitlines() if line.strip()]
    verb = command.split(maxsplit=1)[0]
    if "Traceback" in said:
        return f"{verb} TRACEBACK {lines[-1]}"
    told = next((line for line in lines if line.startswith("trifront: ")), "")
    return f"{verb} {process.returncode} {told.removeprefix('trifront: ')}".strip()


Strike = Callable[[Scene], Iterator[str]]


def two_searches(scene: Scene) -> Iterator[str]:
    """Search one study twice at once."""
    command = f"{SEARCH} --trials 6"
    both = [scene.start(command) for _ in range(2)]
    yield from (answer_of(command, one) for one in both)
    measured = [one for one in outcomes(scene.folder) if isinstance(one, tuple)]
    yield f"{len(measured)} trials of 6"


def two_studies(scene: Scene) -> Iterator[str]:
    """Search two studies of one workspace at once."""
    commands = [f"{SEARCH} --trials 4", f"{SEARCH} --trials 2 --study other"]
    both = [scene.start(one) for one in commands]
    yield from (answer_of(*pair) for pair in zip(commands, both, strict=True))


def moved(scene: Scene) -> Iterator[str]:
    """Move the workspace to another folder and name, and back."""
    there = scene.folder.with_name("moved") / "named-otherwise"
    there.parent.mkdir(exist_ok=True)
    (scene.folder / "trifront").rename(there)
    for command in ("front", GOES_ON, "export knee --to out-moved"):
        yield scene.says(f"{command} --workspace {there}")
    there.rename(scene.folder / "trifront")


def read_only(scene: Scene) -> Iterator[str]:
    """Make the file system read-only."""
    mount("--bind", str(scene.folder), str(scene.folder))
    mount("-o", "remount,ro,bind", str(scene.folder))
    try:
        for command in ("front", "front --plot f.png", "report", GOES_ON, "export knee --to e"):
            yield scene.says(command)
    finally:
        unmount(scene.folder)


def filled(command: str) -> Strike:
    """Let a command meet a disk that fills up, and run it again when there is space."""

    def strike(scene: Scene) -> Iterator[str]:
        for free_bytes in FREE_BYTES:
            with small_disk(scene) as disk:
                filler = disk.folder / "filler"
                fill(filler, free_bytes)
                answer = disk.says(command)
                before = outcomes(scene.folder)
                lost = sum(outcomes(disk.folder).get(one) != before[one] for one in before)
                filler.unlink()
                yield f"{free_bytes:,} bytes left: {answer}; lost {lost}; {disk.says(command)}"

    return strike


@contextmanager
def small_disk(scene: Scene) -> Iterator[Scene]:
    """Copy the workspace to a disk of 24 megabytes."""
    disk = scene.folder.with_name("disk")
    disk.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk))
    try:
        copy = shutil.copytree(scene.folder, disk / "work")
        yield Scene(copy)
    finally:
        unmount(disk)


def fill(filler: Path, free_bytes: int) -> None:
    """Leave so much of a disk."""
    room = os.statvfs(filler.parent)
    with filler.open("wb") as file:
        file.write(bytes(max(0, room.f_bavail * room.f_frsize - free_bytes)))


def mount(*arguments: str) -> None:
    """Mount something, as root."""
    subprocess.run(["/usr/bin/mount", *arguments], check=True)


def unmount(folder: Path) -> None:
    """Take it away again."""
    subprocess.run(["/usr/bin/umount", str(folder)], check=True)


def edited_manifest(scene: Scene) -> Iterator[str]:
    """Change each value of the manifest in turn, as an editor would."""
    from optimizer.errors import BundleError
    from optimizer.verification.bundle import open_bundle

    path = scene.folder / "out" / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    found: Counter[str] = Counter()
    for keys in leaves(document):
        changed = json.loads(json.dumps(document))
        change(changed, keys)
        path.write_text(json.dumps(changed, indent=2), encoding="utf-8")
        try:
            open_bundle(scene.folder / "out")
            found["taken"] += 1
        except BundleError:
            found["refused"] += 1
    yield f"of {found.total()} values changed one at a time, {dict(found)}"
    yield scene.says("verify out --sessions 0")


def leaves(document: object, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to each value of a JSON document."""
    pairs: list[tuple[str | int, object]] = []
    if isinstance(document, dict):
        pairs = list(document.items())
    elif isinstance(document, list):
        pairs = list(enumerate(document))
    for key, value in pairs:
        yield from leaves(value, (*keys, key))
    if not pairs:
        yield keys


def change(document: object, keys: tuple[str | int, ...]) -> None:
    """Replace one value of a JSON document."""
    inner = document
    for key in keys[:-1]:
        inner = inner[key]  # type: ignore[index] # the way leads through lists and dicts
    inner[keys[-1]] = "edited"  # type: ignore[index] # likewise


def spoilt(pattern: str, spoil: Callable[[Path], object], *commands: str) -> Strike:
    """Spoil files of the scene, run commands, put the files back."""

    def strike(scene: Scene) -> Iterator[str]:
        kept = {path: path.read_bytes() for path in scene.folder.glob(pattern)}
        for path in kept:
            spoil(path)
        for command in commands:
            yield scene.says(command)
        for path, content in kept.items():
            path.write_bytes(content)

    return strike


def locked_study(scene: Scene) -> Iterator[str]:
    """Hold the database from another process."""
    holder = closing(sqlite3.connect(scene.study, isolation_level=None))
    with holder as database:
        database.execute("BEGIN EXCLUSIVE")
        url = f"sqlite:///{scene.study}?timeout=2"
        for command in ("front", f"{SEARCH} --trials 3"):
            yield scene.says(f"{command} --storage {url}")
        database.execute("ROLLBACK")
    yield scene.says(GOES_ON)


def set_clock(scene: Scene) -> Iterator[str]:
    """Let the first trial have ended before it began, as where the clock was set back."""
    scene.change("UPDATE trials SET datetime_complete = '2001-01-01' WHERE number = 0")
    yield scene.says(f"{SEARCH} --time 1s")


def links(scene: Scene) -> Iterator[str]:
    """Export through links and ``..``, into an export, and from a store that leads elsewhere."""
    (scene.folder / "dangling").symlink_to("nowhere")
    for place in ("dangling", "out/../beside", "out/inside", "trifront"):
        yield f"--to {place}: {scene.says(f'export knee --to {place}')}"
    (scene.folder / "out" / "linked").symlink_to("README.md")
    yield f"a link in an export: {scene.says('verify out --sessions 0')}"


def cut(path: Path) -> None:
    """Cut a file short."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def append(path: Path) -> None:
    """Add a byte."""
    with path.open("ab") as file:
        file.write(b"x")


def flip(path: Path) -> None:
    """Change a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_version(path: Path) -> None:
    """Say that the tables are of a later Optuna."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.9.9.a'")


VERIFY = "verify out --sessions 0"
STUDY = "trifront/studies.db"
FAULTS: dict[str, Strike] = {
    "two searches of one study at once": two_searches,
    "two searches of one workspace at once": two_studies,
    "workspace moved and renamed": moved,
    "file system read-only": read_only,
    "disk full during a search": filled(GOES_ON),
    "disk full during an export": filled("export knee --to full"),
    "disk full during a report": filled("report --to full.html"),
    "disk full while MLflow is told": filled("sync --study tiny"),
    "links and .. in places of exports": links,
    "manifest edited": edited_manifest,
    "SHA256SUMS edited": spoilt("out/SHA256SUMS", flip, VERIFY),
    "references edited": spoilt("out/references.npz", flip, VERIFY),
    "study cut short": spoilt(STUDY, cut, "front", GOES_ON),
    "study of a later Optuna": spoilt(STUDY, of_another_version, "front", GOES_ON),
    "study locked by another process": locked_study,
    "raw blocks changed": spoilt("trifront/blocks/*", flip, "front", "report", "export 0 --to b"),
    "engine store changed": spoilt("trifront/store/*/*/*/payload", append, "export 0 --to c"),
    "records of the store changed": spoilt("trifront/store/*/*/*/entry.json", cut, GOES_ON),
    "clock set back during a trial": set_clock,
}


def outcomes(folder: Path) -> dict[object, object]:
    """Read what is known of each trial, and its raw blocks, without our own code."""
    query = (
        "SELECT number, study_id, value_json FROM trials JOIN trial_user_attributes "
        "USING (trial_id) WHERE key = 'outcome' AND state = 'COMPLETE'"
    )
    with closing(sqlite3.connect(folder / "trifront" / "studies.db")) as database:
        found: dict[object, object] = {row[:2]: row[2] for row in database.execute(query)}
    blocks = (folder / "trifront" / "blocks").glob("*.parquet")
    return found | {path.name: path.read_bytes() for path in blocks}


def provoked(template: Path, root: Path, strike: Strike) -> tuple[int, list[str]]:
    """Provoke a fault in a fresh copy; return how much was lost, and what commands said."""
    folder = root / "scene"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True)
    said = list(strike(Scene(folder)))
    known, now = outcomes(template), outcomes(folder)
    return sum(now.get(one) != known[one] for one in known), said


def main() -> int:
    """Print the table; 0 where nothing was lost and every command ended in words."""
    root, sound = Path(tempfile.mkdtemp(prefix="fault-table-")), True
    try:
        template = root / "template"
        template.mkdir()
        (template / "tiny.yaml").write_text(SPACE, encoding="utf-8")
        for command in BEFORE:
            print(f"before: {Scene(template).says(command)}", file=sys.stderr)
        for name, strike in FAULTS.items():
            if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
                continue
            lost, said = provoked(template, root, strike)
            print(f"{name}: lost {lost}", *said, sep="\n    ", flush=True)
            sound &= not lost and not any("TRACEBACK" in one or "HANGS" in one for one in said)
    finally:
        shutil.rmtree(root)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
