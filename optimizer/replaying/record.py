"""Measure every deployment of a space and write down what came of it, resumably.

It is a search without a limit over a study of its own; interrupted, the same command goes on. The
order is random, seeded: in the order of the axes, a machine that drifts over hours would look like
an axis that matters.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.search import Finished
from optimizer.search.session import SearchOrder, searched
from optimizer.study.study import SearchStudy
from optimizer.tracking.destination import NO_MLFLOW
from optimizer.wiring import Place
from search_spaces.catalog import space_path
from search_spaces.files import space_from_yaml

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOrder:
    """What a user asks to be recorded.

    Attributes:
        space: A space file or the name of a shipped space.
        study: Name of the study; None for ``<space>-grid``.
        seed: Of the order in which deployments are measured.
        sentinel: Measure one deployment again and again, to see whether the machine drifts.
    """

    space: str
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


def missing_in(study: SearchStudy) -> int:
    """Count the deployments of a study's space that have no outcome yet."""
    known = {record.outcome.deployment for record in study.records()}
    return sum(deployment not in known for deployment in study.space.deployments())
