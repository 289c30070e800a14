"""Kill a search at random moments, finish it, and prove that nothing was lost but what ran.

Starts a real ``trifront search`` in a temporary folder, kills it with SIGKILL at seeded random
moments (while it starts, while it measures, writes, spools or judges), and every second time kills
its courier a moment before, in whatever it is about to tell MLflow. It runs the search again each
time and lets the last one finish. Then it looks at everything that is left: study, raw blocks,
store, spool, MLflow, temporary files, processes. Exits with 0 only where every line of the table
is right.

    python scripts/kill_search.py [--space fake] [--kills 10] [--seed 0] [--keep]
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import psutil
from optuna.trial import TrialState

from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.tracking.database import legacy_tables
from optimizer.wiring import place_at, study_at
from optimizer.workspace import STORE_LIMIT_BYTES, Workspace, load_blocks
from trials.outcome import Completed, Failed
from trials.store.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

TRIALS_PER_KILL = 4  # the budget grows with each kill, so that every search has something to do
START_S = 5.0  # a search that is killed before its first trial is killed within so long
BESIDE_S = 0.4  # after a trial's line come its bookkeeping and the next trial
WORKER_DEATH_S = 5.0  # the kernel kills a worker at once, but it dies when it is scheduled
COURIER = "optimizer.tracking.courier_process"
MARK = "TRIFRONT_KILLED_BY"  # in the environment of the search and of all that it starts
LASTING = {"payload", "entry.json", "alive", "pins"}  # names of files in the store that may stay

LASTING_IN_SPOOL = {"gate", "halted", "destination.json", "delivered.jsonl", "status.json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one search ended.

    Attributes:
        moment: When it was killed, in words.
        code: Exit status; -9 where it was killed.
        workers: Processes that it left behind.
    """

    moment: str
    code: int
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the table: what must be so, what was found, and whether that is right."""

    rule: str
    found: str
    right: bool


class Search:
    """The same command again and again, in one folder."""

    def __init__(self, folder: Path, space: str) -> None:
        self._folder = folder
        self._space = space
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.workspace = Workspace(root=folder / "trifront")

    def run(
        self, trials: int, *, kill_after: tuple[int, float] | None = None, courier: bool = False
    ) -> Ending:
        """Run until it ends, or kill it ``seconds`` after its line number ``lines``.

        Args:
            trials: Its budget.
            kill_after: (lines, seconds); None to let it end.
            courier: Kill its courier first, and itself when that has been started again.
        """
        mark = uuid.uuid4().hex
        command = [str(Path(sys.executable).with_name("trifront")), "search", self._space]
        process = subprocess.Popen(
            # a sampler that proposes at once: the kills are to fall on everything else as well
            [*command, "--trials", str(trials), "--sampler", "tpe"],
            cwd=self._folder,
            env=os.environ | {MARK: mark, "TMPDIR": str(self.temporary)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines: list[str] = []
        reader = Thread(target=_collect, args=(process, lines), daemon=True)
        reader.start()
        moment = "never" if kill_after is None else _wait(process, lines, *kill_after)
        if courier and _kill_courier(mark):
            moment += ", its courier a moment before"
        if kill_after is not None:
            process.kill()
        code = process.wait()
        workers = _survivors(mark)
        reader.join(WORKER_DEATH_S)
        if code not in (0, -signal.SIGKILL):
            print(*lines, sep="\n", file=sys.stderr)
        return Ending(moment=moment, code=code, workers=workers)


def _collect(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stderr is not None
    with process.stderr as stream:
        lines.extend(line.rstrip() for line in stream)


def _wait(process: subprocess.Popen[str], lines: list[str], after: int, delay_s: float) -> str:
    while len(lines) < after and process.poll() is None:
        time.sleep(0.002)
    with_delay = time.monotonic() + delay_s
    while time.monotonic() < with_delay and process.poll() is None:
        time.sleep(0.001)
    return f"{delay_s:.2f} s after " + (f"line {after}" if after else "its start")


def _kill_courier(mark: str) -> bool:
    """Kill a search's courier and let the search go on for a moment; tell if there was one."""
    couriers = [one for one in _marked(mark) if COURIER in _command(one)]
    for one in couriers:
        with contextlib.suppress(psutil.Error):
            one.kill()
    if couriers:
        time.sleep(BESIDE_S)
    return bool(couriers)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []  # it has just gone


def _survivors(mark: str) -> int:
    """Wait for the processes of a search to die; return how many do not."""
    ends = time.monotonic() + WORKER_DEATH_S
    while (left := sum(1 for _ in _marked(mark))) and time.monotonic() < ends:
        time.sleep(0.05)
    return left


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue  # it has just gone, or is not ours


def moments(kills: int, seed: int) -> Iterator[tuple[int, float]]:
    """Draw when to kill: every third search while it starts, the others at a line or after it."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    for kill in range(kills):
        if kill % 3 == 0:
            yield 0, chance.uniform(0, START_S)
        else:
            # one line says that it begins, each trial has one, and so has each front member
            yield chance.randint(1, 2 * TRIALS_PER_KILL), chance.uniform(0, BESIDE_S)


def killed_and_finished(search: Search, *, kills: int, seed: int) -> list[Ending]:
    """Kill so many searches and finish the last."""
    endings = []
    for number, moment in enumerate(moments(kills, seed), start=1):
        ending = search.run(number * TRIALS_PER_KILL, kill_after=moment, courier=number % 2 == 0)
        endings.append(ending)
        print(f"kill {number:2}: {ending.moment}, exit {ending.code}", flush=True)
    last = search.run((kills + 1) * TRIALS_PER_KILL)
    endings.append(last)
    print(f"finished: exit {last.code}")
    return endings


def findings(search: Search, endings: list[Ending]) -> list[Finding]:
    """Look at everything that the searches left."""
    study = study_at(place_at(search.workspace.root, None), None)
    codes = {ending.code for ending in endings[:-1]} - {0, -signal.SIGKILL}
    workers = sum(ending.workers for ending in endings)
    kills = sum(ending.code == -signal.SIGKILL for ending in endings)
    return [
        _all_zero("no search ended badly", {str(code): 1 for code in codes}),
        _all_zero("the last one finished", {"exit code": endings[-1].code}),
        _all_zero("no worker or courier left behind", {"alive": workers}),
        *_of_study(study, kills=kills, trials=len(endings) * TRIALS_PER_KILL),
        _of_blocks(study, search.workspace),
        _of_store(search.workspace),
        *_of_mlflow(study, search.workspace),
        _of_spool(search.workspace),
        _of_files(study, search),
    ]


def _of_study(study: SearchStudy, *, kills: int, trials: int) -> Iterator[Finding]:
    records = study.records()
    tried = Counter(
        record.outcome.deployment for record in records if not isinstance(record.outcome, Failed)
    )
    states = [frozen.state for frozen in study.study.get_trials(deepcopy=False)]
    lost = states.count(TrialState.FAIL) - sum(_is_own_fault(record) for record in records)
    open_ended = {
        state.name.lower(): states.count(state)
        for state in (TrialState.RUNNING, TrialState.WAITING)
    }
    given_up = {record.outcome.deployment for record in records} - set(tried)
    yield Finding(
        rule="the budget is met",
        found=f"{len(tried)} deployments tried, {len(given_up)} given up, of {trials}",
        right=len(tried) + len(given_up) == trials,
    )
    twice = sum(count > 1 for count in tried.values())
    yield _all_zero("no deployment measured twice", {"measured twice": twice})
    yield _all_zero("nothing running or waiting", open_ended)
    yield Finding(
        rule="at most the running trial lost per kill",
        found=f"{lost} lost by {kills} kills",
        right=lost <= kills,
    )


def _is_own_fault(record: TrialRecord) -> bool:
    return isinstance(record.outcome, Failed) and record.outcome.kind != "interrupted"


def _of_blocks(study: SearchStudy, workspace: Workspace) -> Finding:
    measured = [record for record in study.records() if isinstance(record.outcome, Completed)]
    good = 0
    for record in measured:
        assert isinstance(record.outcome, Completed)
        path = workspace.blocks(record.uid)
        blocks = load_blocks(path) if path.exists() else ()
        good += sum(len(block.latencies_s) for block in blocks) >= record.outcome.speed.requests
    files = len(list((workspace.root / "blocks").iterdir()))
    return Finding(
        rule="raw blocks of every measured trial",
        found=f"{good} whole of {len(measured)} measured, {files} files",
        right=good == len(measured) == files > 0,
    )


def _of_store(workspace: Workspace) -> Finding:
    store = Store(workspace.store, limit_bytes=STORE_LIMIT_BYTES)
    corrupt = store.verify()
    return Finding(
        rule="the store verifies",
        found=f"{len(corrupt)} corrupt of {len(store.list())}",
        right=not corrupt and bool(store.list()),
    )


def _of_mlflow(study: SearchStudy, workspace: Workspace) -> Iterator[Finding]:
    with legacy_tables():
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{workspace.mlflow}")
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None, "the last search made it"
    runs = client.search_runs([experiment.experiment_id], max_results=10_000)
    kinds = Counter(run.data.tags["kind"] for run in runs)
    trials = [run for run in runs if run.data.tags["kind"] == "trial"]
    uids = Counter(run.data.tags["trial_uid"] for run in trials)
    running = sum(run.info.status == "RUNNING" for run in runs)
    ended = {record.uid for record in study.records()}
    yield Finding(
        rule="one finished run per ended trial",
        found=f"{sum(uids.values())} runs of {len(ended)} trials, {running} running",
        right=uids == Counter(ended) and running == 0,
    )
    twice = sum(
        len(client.get_metric_history(run.info.run_id, metric)) > 1
        for run in trials
        for metric in ("latency_p99_ms", "cost.measure_s")
    )
    yield _all_zero("no metric told twice", {"told twice": twice})
    measured = [run for run in trials if run.data.tags["state"] == "completed"]
    files = sum((_artifacts(run) / "latencies.png").is_file() for run in measured)
    models = list(client.search_logged_models([experiment.experiment_id], max_results=1000))
    engines = {run.data.tags["engine_digest"] for run in measured}
    linked = sum(bool(run.outputs and run.outputs.model_outputs) for run in measured)
    yield Finding(
        rule="one run of the search, each engine once",
        found=f"{kinds['search']} run, {len(models)} models of {len(engines)} engines, "
        f"{linked} linked and {files} pictures of {len(measured)} measured",
        right=kinds["search"] == 1
        and len(models) == len(engines)
        and linked == files == len(measured),
    )


def _artifacts(run: "Run") -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def _of_spool(workspace: Workspace) -> Finding:
    """Find what was not delivered, and sessions that nobody ended."""
    waiting = len(list(workspace.spool.glob("*/waiting/*")))
    sessions = len(list(workspace.spool.glob("*/sessions/*")))
    return _all_zero("the spool is empty", {"waiting": waiting, "sessions": sessions})


def _of_files(study: SearchStudy, search: Search) -> Finding:
    """Find what no living thing needs: half-written, staged or forgotten files."""
    root = search.workspace.root
    uids = {record.uid for record in study.records()}
    forgotten = [path for path in (root / "blocks").iterdir() if path.stem not in uids]
    hidden = [
        path
        for path in root.rglob(".*")
        if path.name != ".storage.lock"  # empty, and made once
    ]
    journals = list(root.glob("*-journal"))
    scratch = [
        path for path in (root / "store").rglob("*") if path.is_file() and path.name not in LASTING
    ]
    temporary = [
        path for path in search.temporary.iterdir() if not path.name.startswith("db_init_lock")
    ]
    spool = [
        path
        for path in search.workspace.spool.rglob("*")
        if path.is_file() and path.name not in LASTING_IN_SPOOL
    ]
    left = [*forgotten, *hidden, *spool, *journals, *scratch, *temporary]
    names = ", ".join(str(path.relative_to(root.parent)) for path in left[:5])
    return Finding(
        rule="no temporary or forgotten file",
        found=names or "none",
        right=not left,
    )


def _all_zero(rule: str, counts: dict[str, int]) -> Finding:
    found = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
    return Finding(rule=rule, found=found, right=not any(counts.values()))


def main() -> int:
    """Kill, finish, print the table; 0 where all of it is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="fake", help="a space file or a shipped space")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", action="store_true", help="keep the folder to look into")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-search-"))
    try:
        search = Search(folder, arguments.space)
        endings = killed_and_finished(search, kills=arguments.kills, seed=arguments.seed)
        table = findings(search, endings)
        for finding in table:
            word = "ok  " if finding.right else "BAD "
            print(f"{word} {finding.rule:40} {finding.found}")
        return 0 if all(finding.right for finding in table) else 1
    finally:
        if arguments.keep:
            print(f"kept in {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
