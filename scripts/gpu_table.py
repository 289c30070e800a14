"""Make a table of what ``scripts/gpu-check`` recorded, and search it.

    python scripts/gpu_table.py DIR [--trials 30]

Writes ``DIR/table.csv``: one line per deployment, each number with its 95 % interval, and whether
it is on the front of p99 latency, throughput and agreement with fp32. With the whole grid known,
it also says what share of the front's hypervolume a search of so many trials would have found,
random and with Optuna's TPE, over ten seeds.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.front.volume import hypervolume, nondominated
from trials.measurement import Block, Estimate, Speed
from trials.measuring.statistics import summarize

NS = 1_000_000_000
SEEDS = 10
AXES = ("variant", "precision", "batch_size", "concurrency", "cuda_graph", "mode")


def recorded(folder: Path) -> list[tuple[dict[str, Any], Speed]]:
    """Read the grid and reduce each deployment's blocks.

    Returns:
        (what was said of the deployment, its speed); those that could not be measured are left
        out.

    Raises:
        OSError: A file is missing.
    """
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    found = []
    with np.load(folder / "blocks.npz", allow_pickle=False) as stored:
        for row in report["found"].get("grid", []):
            if "blocks" in row:
                blocks = [
                    Block(
                        start_s=facts["start_s"],
                        window_s=facts["window_s"],
                        latencies_s=stored[f"{row['number']}.{at}"] / NS,
                        batch_size=row["batch_size"],
                    )
                    for at, facts in enumerate(row["blocks"])
                ]
                found.append((row, summarize(blocks, target_met=False)))
    return found


def costs_of(rows: Sequence[tuple[dict[str, Any], Speed]]) -> NDArray[np.float64]:
    """Return what is to be minimized, shape ``(deployments, 3)``: logs of speed, disagreement."""
    return np.array(
        [
            (
                np.log10(speed.latency_p99_s.value),
                -np.log10(speed.throughput_sps.value),
                1 - row["agreement"],
            )
            for row, speed in rows
        ]
    )


def write_table(
    rows: Sequence[tuple[dict[str, Any], Speed]], on_front: NDArray[np.bool_], out: Path
) -> None:
    """Write the table as CSV."""
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        names = ("latency_p50_ms", "latency_p99_ms", "throughput_sps")
        ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
        table.writerow((*AXES, *ends, "agreement", "deviation", "peak_memory_bytes", "on_front"))
        for (row, speed), is_member in zip(rows, on_front, strict=True):
            numbers = (
                *_ends(speed.latency_p50_s, 1e3),
                *_ends(speed.latency_p99_s, 1e3),
                *_ends(speed.throughput_sps, 1.0),
            )
            told = (row["agreement"], row["deviation"], row.get("peak_memory_bytes", ""))
            table.writerow((*_point(row), *numbers, *told, int(is_member)))


def share_found(costs: NDArray[np.float64], order: Sequence[int]) -> float:
    """Return the hypervolume of the deployments of an order, as a share of all deployments'."""
    return hypervolume(costs[list(order)], costs) / hypervolume(costs, costs)


def random_order(
    costs: NDArray[np.float64], rows: Sequence[Any], trials: int, seed: int
) -> list[int]:
    """Choose deployments by chance."""
    del rows
    return [int(at) for at in np.random.default_rng(seed).permutation(len(costs))[:trials]]


def tpe_order(
    costs: NDArray[np.float64], rows: Sequence[Any], trials: int, seed: int
) -> list[int]:
    """Let TPE ask for deployments; one that is not in the table costs it nothing and is left."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    at = {_point(row): number for number, (row, _) in enumerate(rows)}
    values = [sorted({point[axis] for point in at}, key=str) for axis in range(len(AXES))]
    study = optuna.create_study(
        directions=["minimize"] * costs.shape[1],
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8),
    )
    chosen: list[int] = []
    for _ in range(20 * trials):
        if len(set(chosen)) == min(trials, len(at)):
            break
        trial = study.ask()
        point = tuple(
            trial.suggest_categorical(name, choices)
            for name, choices in zip(AXES, values, strict=True)
        )
        number = at.get(point)
        if number is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, [float(cost) for cost in costs[number]])
            chosen.append(number)
    return list(dict.fromkeys(chosen))


def main() -> None:
    """Write the table and search it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=30)
    arguments = parser.parse_args()
    rows = recorded(arguments.folder)
    if not rows:
        sys.exit(f"{arguments.folder}: no deployment was measured; report.md says why")
    costs = costs_of(rows)
    on_front = nondominated(costs)
    write_table(rows, on_front, arguments.folder / "table.csv")
    print(f"{len(rows)} deployments, {int(on_front.sum())} on the front: table.csv")
    trials = min(arguments.trials, len(rows))
    searches: dict[str, Callable[..., list[int]]] = {"random": random_order, "TPE": tpe_order}
    for name, search in searches.items():
        shares = [share_found(costs, search(costs, rows, trials, seed)) for seed in range(SEEDS)]
        print(
            f"{name}, {trials} trials: {np.mean(shares):.1%} of the hypervolume "
            f"(worst of {SEEDS} seeds {min(shares):.1%})"
        )


def _point(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] if name in row else row["options"].get(name, "") for name in AXES)


def _ends(estimate: Estimate, factor: float) -> Iterator[float | None]:
    """Yield value, low and high; an end that the data do not bound stays empty."""
    for end in (estimate.value, estimate.low, estimate.high):
        yield None if end is None else end * factor


if __name__ == "__main__":
    main()
