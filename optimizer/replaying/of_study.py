"""A deployment table of what a study has measured."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import TableError
from optimizer.inspections import inspection_of
from optimizer.replaying.pricing import Own, Pricing, Shared
from optimizer.replaying.table import (
    PRICES,
    STATES,
    DeploymentTable,
    Metrics,
    Origin,
    Prices,
    coded,
    flat_positions,
)
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.workspace import STORE_LIMIT_BYTES, Workspace
from search_spaces.metrics import METRICS
from trials.backends.catalog import backend_named
from trials.measurement import Estimate
from trials.outcome import Completed
from trials.store.store import Store

if TYPE_CHECKING:
    from search_spaces.deployment import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What one deployment came to."""

    at: tuple[int, ...]
    record: TrialRecord
    shared: Shared
    own: Own


def table_of_study(study: SearchStudy, workspace: Workspace) -> DeploymentTable:
    """Make a table of what a study has measured, which may be part of its space.

    Raises:
        TableError: Nothing was measured, or a price is unknown.
        StoreError: The store cannot be read.
    """
    records = study.records()
    if not records:
        raise TableError(
            f"study '{study.name}' has measured nothing yet",
            hint="`trifront record` measures a whole space",
        )
    store = Store(workspace.store, limit_bytes=STORE_LIMIT_BYTES)
    pricing = Pricing(
        records,
        backend_named(study.space.backend).capabilities(),
        store.list(),
        _inspected(records, workspace),
    )
    return _assembled(study, _rows(study, pricing))


def _inspected(
    records: Sequence[TrialRecord], workspace: Workspace
) -> Iterator[tuple[str, float]]:
    engines = {
        one.outcome.engine.engine_key: one.outcome.engine
        for one in records
        if isinstance(one.outcome, Completed)
    }
    for key, engine in engines.items():
        found = inspection_of(engine, workspace)
        if found is not None:
            yield key, found.build_s


def _rows(study: SearchStudy, pricing: Pricing) -> list[_Row]:
    """Return a row for each deployment that was tried, in the order of the axes."""
    alike: dict[Deployment, list[TrialRecord]] = {}
    for record in study.records():
        alike.setdefault(record.outcome.deployment, []).append(record)
    rows = []
    for deployment in study.space.deployments():
        if deployment not in alike:
            continue
        ended = [one for one in alike[deployment] if one.outcome.state != "failed"]
        counted = ended[-1:] or alike[deployment]  # what failed and then ran was tonight's fault
        indices = study.encoding.indices(study.encoding.params(deployment))
        rows.append(
            _Row(
                at=indices,
                record=counted[-1],
                shared=pricing.shared(deployment),
                own=pricing.own(counted),
            )
        )
    return rows


def _assembled(study: SearchStudy, rows: Sequence[_Row]) -> DeploymentTable:
    positions = np.array([row.at for row in rows], dtype=np.int64)
    model_names, models = coded([row.shared.model for row in rows])
    engine_names, engines = coded([row.shared.engine for row in rows])
    outcomes = [row.record.outcome for row in rows]
    prices = {
        name: np.array([_price(row, name) for row in rows], dtype=np.float64) for name in PRICES
    }
    return DeploymentTable(
        space=study.space,
        origin=_origin(study),
        positions=positions,
        states=np.array([STATES.index(one.state) for one in outcomes], dtype=np.int64),
        kinds=tuple("" if isinstance(one, Completed) else one.kind for one in outcomes),
        reasons=tuple("" if isinstance(one, Completed) else one.reason for one in outcomes),
        model_names=model_names,
        models=models,
        engine_names=engine_names,
        engines=engines,
        metrics=_metrics(
            [one.metrics() if isinstance(one, Completed) else {} for one in outcomes]
        ),
        prices=Prices(**prices),
        flat=flat_positions(positions, study.space),
    )


def _price(row: _Row, name: str) -> float:
    seconds: float = getattr(row.shared if hasattr(row.shared, name) else row.own, name)
    return seconds


def _metrics(measured: Sequence[dict[str, Estimate]]) -> Metrics:
    names = tuple(name for name in METRICS if any(name in one for one in measured))

    def block(end: str) -> NDArray[np.float64]:
        rows = [[getattr(one.get(name), end, None) for name in names] for one in measured]
        return np.array(rows, dtype=np.float64).reshape(len(measured), len(names))  # None is NaN

    return Metrics(names=names, values=block("value"), lows=block("low"), highs=block("high"))


def _origin(study: SearchStudy) -> Origin:
    return Origin(
        study=study.name,
        identity=study.identity,
        space_file=study.space_file,
        digests=tuple(study.digests.items()),
        environment=tuple(study.environment.items()),
        made_s=time.time(),
    )
