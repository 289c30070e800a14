"""Measure every deployment of a space and write down what came of it, resumably.

It is a search without a limit over a study of its own; interrupted, the same command goes on. The
order is random, seeded: in the order of the axes, a machine that drifts over hours would look like
an axis that matters.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from optimizer.errors import TableError
from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.search import Finished
from optimizer.search.session import SearchOrder, searched
from optimizer.study.study import SearchStudy
from optimizer.tracking.destination import NO_MLFLOW
from optimizer.wiring import Place
from optimizer.workspace import writing
from search_spaces.catalog import space_path
from search_spaces.files import space_from_yaml

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOrder:
    """What a user asks to be recorded.

    Attributes:
        space: A space file or the name of a shipped space.
        out: The table, to see that it can be written before hours are spent.
        study: Name of the study; None for ``<space>-grid``.
        seed: Of the order in which deployments are measured.
        sentinel: Measure one deployment again and again, to see whether the machine drifts.
    """

    space: str
    out: Path
    study: str | None
    seed: int
    sentinel: bool = True


@contextmanager
def measured(
    order: RecordOrder, place: Place, console: "Console"
) -> Iterator[tuple[Finished, SearchStudy]]:
    """Measure what is not measured yet, all of it unless it is interrupted.

    Raises:
        SpaceError: The space file cannot be meant.
        TrialError: A model or data that cannot be used.
        OptimizerError: A study, storage or workspace that cannot be used.
    """
    space = space_from_yaml(space_path(order.space))
    with writing(order.out, option="--out"), TemporaryFile(dir=order.out.parent):
        pass
    search = SearchOrder(
        space=order.space,
        study=order.study or f"{space.name}-grid",
        budget=Budget(trials=sum(1 for _ in space.deployments())),
        sampler=SamplerName.RANDOM,
        seed=order.seed,
        repeats=False,
        mlflow=NO_MLFLOW,
        sentinel=order.sentinel,
    )
    with searched(search, place, console) as found:
        yield found


def check_measured(study: SearchStudy) -> None:
    """See that every deployment of a study's space has an outcome.

    Raises:
        TableError: Some have none yet.
    """
    known = {record.outcome.deployment for record in study.records()}
    all_of_them = list(study.space.deployments())
    missing = sum(deployment not in known for deployment in all_of_them)
    if missing:
        raise TableError(
            f"{len(all_of_them) - missing:,} of {len(all_of_them):,} deployments are measured, "
            "and no table was written",
            hint="the same command goes on from here; --partial writes what there is",
        )
