"""Kill each command at every step that it takes on the disk, and look at what is left.

A command runs in a small real workspace with a hook on what it asks of the operating system: files
opened to be written, renamed, linked, removed, synced, folders made, databases committed. The hook
kills it with SIGKILL at the first such step, then in another run at the second, and so on until
the command ends before it is killed. After each kill the same command runs again, without a hook,
and must do what it is for; every earlier result must be there, and nothing half-written. Where a
command leaves work to a process of its own (the worker that measures, the courier that tells
MLflow), that process is killed likewise.

    python scripts/kill_walk.py [WALK ...] [--every 1]
"""

import argparse
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

ORDER = "TRIFRONT_KILL_WALK"  # JSON: process, moment, root, log
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir"}
LASTING = {".storage.lock"}  # empty, and made once
CHILD = """
import os, sys
if {variable!r} in os.environ:
    sys.path.insert(0, {folder!r})
    import kill_walk
    sys.path.pop(0)
    kill_walk.light_in_child()
"""
IMPORTED = (  # by every command that is tried, so that importing is paid for once
    "optimizer.cli",
    "optimizer.search.session",
    "optimizer.exporting",
    "optimizer.report.page",
    "optimizer.front.plot",
    "optimizer.tracking.syncing",
    "optimizer.registering",
    "pyarrow.parquet",
)
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


class Fuse:
    """Counts what this process changes below a folder, and kills it at one of these moments."""

    def __init__(self, root: str, moment: int, log: str) -> None:
        self._root = root
        self._moment = moment
        self._log = log
        self._seen = 0

    def burn(self, what: str) -> None:
        """Count a moment; the process does not live to see the end of the last."""
        self._seen += 1
        if self._seen == self._moment:
            Path(self._log).write_text(what, encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Listen to Python's audit events."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES and self._is_ours(path):
                self.burn(f"open {path}")
        elif event in CHANGES and any(self._is_ours(one) for one in arguments[:2]):
            self.burn(f"{event} {arguments[0]}")

    def _is_ours(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        text = os.fsdecode(path)
        return os.path.abspath(text).startswith(self._root) and text != self._log  # noqa: PTH100

    def light(self) -> None:
        """Begin to listen: to files by audit events, to what has none by a wrapper."""
        sync, connect, fuse = os.fsync, sqlite3.connect, self

        def counted_sync(descriptor: int) -> None:
            fuse.burn("fsync")
            sync(descriptor)

        class Counted(sqlite3.Connection):
            def commit(self) -> None:
                if self.in_transaction:
                    fuse.burn("before a commit")
                    super().commit()
                    fuse.burn("after a commit")

        counted_connect = partial(connect, factory=Counted)
        vars(os)["fsync"] = counted_sync
        vars(sqlite3)["connect"] = vars(sqlite3.dbapi2)["connect"] = counted_connect
        sys.addaudithook(self.hear)


def light_in_child() -> None:
    """Light the fuse if this process is the one that is meant; called by its ``sitecustomize``."""
    order = json.loads(os.environ.get(ORDER, "null"))
    if order is None or Path(order["log"]).exists():  # killed once: its successor may live
        return
    if order["process"] in " ".join(sys.orig_argv):
        Fuse(order["root"], order["moment"], order["log"]).light()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended.

    Attributes:
        code: Exit status; -9 where it was killed.
        killed_at: At which step it, or the process that was meant, was killed; empty for none.
    """

    code: int
    said: str
    killed_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One command that is killed at every step.

    Attributes:
        before: Commands that make what it finds.
        command: Arguments of ``trifront``.
        process: Part of the command line of the process that is killed; empty for the command's.
        trials: How many must be measured in the end.
        place: Where it writes besides the workspace; empty for nowhere.
    """

    before: tuple[str, ...]
    command: str
    process: str = ""
    trials: int = 2
    place: str = ""


@dataclass(slots=True)
class Tally:
    """What a walk found.

    Attributes:
        moments: At which the process was killed.
        again: How often the next run ended with which code.
        lost: Earlier trials that were not as before, after a kill or after the next run.
        seconds: That the walk took.
        wrong: What was not as it must be, and how often.
    """

    moments: int = 0
    again: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    seconds: float = 0.0
    wrong: Counter[str] = field(default_factory=Counter)


class Stage:
    """The folder in which commands run, always the same path, made afresh for each moment."""

    def __init__(self, root: Path, hook: Path) -> None:
        self.folder = root / "stage"
        self._log = root / "killed_at"
        self._said = root / "said"
        self._hook = hook

    def set_up(self, template: Path) -> None:
        """Begin again from what a command finds."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(template, self.folder, symlinks=True)
        (self.folder / "tmp").mkdir(exist_ok=True)

    def run(self, command: tuple[str, ...], *, process: str = "", moment: int = 0) -> Ran:
        """Run a command; kill it, or the ``process`` of its that is meant, at a ``moment``."""
        self._log.unlink(missing_ok=True)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._become(command, process=process, moment=moment)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        killed_at = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
        said = self._said.read_text(encoding="utf-8", errors="replace")
        return Ran(code=code, said=said, killed_at=killed_at)

    def _become(self, command: tuple[str, ...], *, process: str, moment: int) -> NoReturn:
        """Be the command, in a process of its own that has imported everything already."""
        code = 70
        try:
            os.chdir(self.folder)
            os.environ["TMPDIR"] = tempfile.tempdir = str(self.folder / "tmp")
            os.environ["PYTHONPATH"] = str(self._hook)
            out = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.argv = ["trifront", *command]
            root, log = str(self.folder), str(self._log)
            if moment and process:
                order = {"process": process, "root": root, "moment": moment, "log": log}
                os.environ[ORDER] = json.dumps(order)
            elif moment:
                Fuse(root, moment, log).light()
            code = _exit_code()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _exit_code() -> int:
    from optimizer.cli import main

    try:
        main()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 -- what Python itself would print
        traceback.print_exc()
        return 1
    return 0


SEARCH = "search tiny.yaml --sampler random"
TWO = f"{SEARCH} --trials 2 --mlflow none"
TOLD = f"{SEARCH} --trials 2"
REAL = "search fashion-mnist --sampler random --trials 1 --mlflow none"
EXPORT = "export knee --to out/place --format"
WALKS = {
    "first search": Walk(before=(), command=f"{SEARCH} --trials 1 --mlflow none", trials=1),
    "search": Walk(before=(TWO,), command=f"{SEARCH} --trials 3 --mlflow none", trials=3),
    "worker": Walk(
        before=(TWO,),
        command=f"{SEARCH} --trials 3 --mlflow none",
        process="trials.isolation.process",
        trials=3,
    ),
    "spool": Walk(before=(TOLD,), command=f"{SEARCH} --trials 3", trials=3),
    "sync": Walk(
        before=(TOLD, f"{SEARCH} --trials 3 --mlflow none"), command="sync -s tiny", trials=3
    ),
    "courier": Walk(
        before=(TOLD, f"{SEARCH} --trials 3 --mlflow none"),
        command="sync -s tiny",
        process="courier_process",
        trials=3,
    ),
    "front": Walk(before=(TWO,), command="front --plot out/front.png --csv out/trials.csv"),
    "report": Walk(before=(TWO,), command="report --to out/report.html"),
    "bundle": Walk(before=(TWO,), command=f"{EXPORT} bundle", place="out/place"),
    "onnx": Walk(before=(REAL,), command=f"{EXPORT} onnx", trials=1, place="out/place"),
    "triton": Walk(before=(REAL,), command=f"{EXPORT} triton", trials=1, place="out/place"),
    "register": Walk(before=(TOLD, f"{EXPORT} bundle"), command="register out/place"),
}


def outcomes(folder: Path) -> dict[int, str]:
    """Read what the study knows of each ended trial, without our own code."""
    file = folder / "trifront" / "studies.db"
    if not file.exists():
        return {}
    query = (
        "SELECT number, value_json FROM trials JOIN trial_user_attributes USING (trial_id) "
        "WHERE key = 'outcome' AND state = 'COMPLETE'"
    )
    with closing(sqlite3.connect(file)) as database:
        return dict(database.execute(query).fetchall())


def problems(folder: Path, walk: Walk) -> Iterator[str]:
    """Say what is not as it must be when a command has been killed and run again."""
    from optimizer.wiring import place_at, study_at
    from optimizer.workspace import STORE_LIMIT_BYTES, load_blocks
    from trials.store.store import Store

    place = place_at(folder / "trifront", None)
    study = study_at(place, None)
    states = Counter(trial.state.name for trial in study.study.get_trials(deepcopy=False))
    if states["COMPLETE"] != walk.trials or states["RUNNING"] or states["WAITING"]:
        yield f"trials are {dict(states)}"
    for number in outcomes(folder):
        load_blocks(place.workspace.blocks(study.uid(number)))
    if Store(place.workspace.store, limit_bytes=STORE_LIMIT_BYTES).verify():
        yield "the store is damaged"
    yield from (f"left {name}" for name in leftovers(folder))
    yield from _told_twice(place.workspace.mlflow)
    if walk.place:
        from optimizer.verification.bundle import open_bundle

        open_bundle(folder / walk.place)


def leftovers(folder: Path) -> set[str]:
    """Name what nobody needs any more, without what makes its name unlike any other."""
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return {
        path.as_posix()
        for path in found
        if (path.name.startswith(".") and path.name not in LASTING)
        or path.name.endswith("-journal")
        or path.name in ("drafts", "gone")
        or (path.parts[0] == "tmp" and len(path.parts) == 2 and "db_init_lock" not in path.name)  # noqa: PLR2004
    }


def _told_twice(file: Path) -> Iterator[str]:
    if not file.exists():
        return
    with closing(sqlite3.connect(file)) as database:
        uids = database.execute("SELECT value FROM tags WHERE key = 'trial_uid'").fetchall()
        open_ended = database.execute("SELECT 1 FROM runs WHERE status = 'RUNNING'").fetchall()
    if len(set(uids)) < len(uids):
        yield "MLflow was told twice"
    if open_ended:
        yield "a run is RUNNING in MLflow"


def walked(stage: Stage, template: Path, walk: Walk, *, every: int) -> Tally:
    """Kill a command at its moments in turn, and judge what its next run made of it."""
    command, tally, known = tuple(walk.command.split()), Tally(), outcomes(template)
    began_s, moment = time.monotonic(), 1
    while True:
        stage.set_up(template)
        ran = stage.run(command, process=walk.process, moment=moment)
        if not ran.killed_at:
            tally.seconds = time.monotonic() - began_s
            return tally
        whole = bool(walk.place) and (stage.folder / walk.place).exists()
        tally.lost += _lost(known, stage.folder)
        again = stage.run(command)
        tally.lost += _lost(known, stage.folder)
        tally.moments += 1
        tally.again[again.code] += 1
        wrong = {f"ends with {again.code}"} if again.code != int(whole) else set()
        if "Traceback" in ran.said + again.said:
            wrong.add("a traceback")
        wrong |= set(problems(stage.folder, walk))
        for one in wrong:
            if not tally.wrong[one]:
                print(f"  moment {moment}, {ran.killed_at}: {one}", file=sys.stderr)
            tally.wrong[one] += 1
        moment += every


def _lost(known: dict[int, str], folder: Path) -> int:
    now = outcomes(folder)
    return sum(now.get(number) != outcome for number, outcome in known.items())


def template_of(stage: Stage, root: Path, walk: Walk) -> Path:
    """Make what a command finds, once for all walks that find the same."""
    template = root / f"before-{abs(hash(walk.before))}"
    if template.exists():
        return template
    (root / "empty").mkdir(exist_ok=True)
    stage.set_up(root / "empty")
    (stage.folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    (stage.folder / "out").mkdir()  # what is named is not made silently
    for command in walk.before:
        ran = stage.run(tuple(command.split()))
        if ran.code:
            raise SystemExit(f"{command}: {ran.said}")
    shutil.copytree(stage.folder, template, symlinks=True)
    return template


def main() -> int:
    """Walk, print the table; 0 where nothing was lost and all was as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("walks", nargs="*", metavar="WALK", help=", ".join(WALKS))
    parser.add_argument("--every", type=int, default=1, help="take every n-th moment alone")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="kill-walk-"))
    hook = root / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        CHILD.format(variable=ORDER, folder=str(Path(__file__).parent)), "utf-8"
    )
    for name in IMPORTED:
        import_module(name)
    stage, sound = Stage(root, hook), True
    try:
        for name in arguments.walks or WALKS:
            walk = WALKS[name]
            tally = walked(stage, template_of(stage, root, walk), walk, every=arguments.every)
            print(
                f"{name:14} {tally.moments:4} kills, {tally.lost} earlier trials lost, "
                f"next run: {dict(tally.again)}, wrong: {dict(tally.wrong) or 'nothing'}, "
                f"{tally.seconds:.0f} s",
                flush=True,
            )
            sound = sound and not tally.lost and not tally.wrong
    finally:
        shutil.rmtree(root)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
