"""What MLflow is told of a search as a whole: pure functions, no MLflow call.

The search has a run of its own beside those of its trials. It is RUNNING while a session searches,
and afterwards holds the front (table, data and picture), the space file, and the hypervolume as a
curve over the trials, against a reference that never moves (see ``growth``).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, takewhile
from typing import Literal, TypeAlias

from optimizer.front.data import csv_of_records, data_of_front
from optimizer.front.front import Front
from optimizer.front.growth import GrowthPoint, csv_of_growth
from optimizer.front.words import short, text_of
from optimizer.study.study import SearchStudy
from optimizer.tracking.messages import Experiment, FrontFound, Point, SearchBegan, SearchEnded
from optimizer.tracking.run_content import datasets_of, source_tags
from search_spaces.space import SearchSpace
from trials.measurement import Quality
from trials.outcome import Completed

EndStatus: TypeAlias = Literal["FINISHED", "KILLED"] | None

HYPERVOLUME = "hypervolume_fixed"  # `front` tells another, a share of a box that grows
PICTURE = "front.png"

_MS_PER_S = 1e3
_DESCRIPTION = 6_000  # characters; MLflow cuts at 8,000, in the middle of a number


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFacts:
    """What identifies a search.

    Attributes:
        study_id: Unlike any other study's.
        space_file: Text of the space file.
        digests: (``data:<split>`` or ``variant:<name>``, SHA-256).
    """

    study: str
    study_id: str
    space: SearchSpace
    space_file: str
    digests: tuple[tuple[str, str], ...]

    @property
    def uid(self) -> str:
        """Uid of the run of the search."""
        return uid_of_search(self.study_id)


def uid_of_search(study_id: str) -> str:
    """Name the run of a search unlike those of trials."""
    return f"search-{study_id}"


def facts_of_search(study: SearchStudy) -> SearchFacts:
    """Say what identifies the search of a study."""
    return SearchFacts(
        study=study.name,
        study_id=study.identity,
        space=study.space,
        space_file=study.space_file,
        digests=tuple(sorted(study.digests.items())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a search has found so far.

    Attributes:
        verdicts: On the report split, by trial number.
        growth: The curve of the hypervolume.
        picture: The front as PNG; None where it cannot be drawn.
    """

    front: Front
    verdicts: Mapping[int, Quality]
    growth: Sequence[GrowthPoint]
    picture: bytes | None


def experiment_of(facts: SearchFacts) -> Experiment:
    """Say what the experiment of a study is."""
    space = facts.space
    wanted = ", ".join(f"{one.metric.name} ({one.direction.value})" for one in space.objectives)
    bounds = ", ".join(f"`{one}`" for one in space.constraints) or "none"
    lines = (
        f"**{facts.study}**: deployments of *{space.name}* on *{space.backend}*, by trifront",
        "",
        f"- objectives: {wanted}",
        f"- constraints: {bounds}",
        "- one run per trial (`tags.kind = 'trial'`), one for the search (`tags.kind = 'search'`)",
        "- the front: `tags.on_front = 'true'`; intervals are the metrics `….low` and `….high`",
    )
    return Experiment(name=facts.study, study_id=facts.study_id, description="\n".join(lines))


def content_of_begin(facts: SearchFacts, *, now_s: float) -> SearchBegan:
    """Say that a search begins or goes on."""
    digests = dict(facts.digests)
    tags = {
        "kind": "search",
        **source_tags(),
        "trial_uid": facts.uid,
        "study": facts.study,
        "study_id": facts.study_id,
        "backend": facts.space.backend,
        "space_sha256": sha256(facts.space_file.encode()).hexdigest(),
        **{f"digest.{name.replace(':', '.')}": digest for name, digest in digests.items()},
    }
    reference = {one.metric.name: one.metric.worst for one in facts.space.objectives}
    return SearchBegan(
        uid=facts.uid,
        name="search",
        started_ms=round(now_s * _MS_PER_S),
        tags=tuple(tags.items()),
        params=(
            ("space", facts.space.name),
            ("objectives", ", ".join(reference)),
            ("hypervolume_reference", json.dumps(reference)),
        ),
        datasets=datasets_of(digests),
        texts=(("space.yaml", facts.space_file),),
    )


def content_of_front(facts: SearchFacts, front: Front) -> FrontFound:
    """Say which trials are on the front."""
    return FrontFound(
        uid=facts.study_id, members=tuple(sorted(record.uid for record in front.members))
    )


def content_of_end(
    uid: str, *, now_s: float, status: EndStatus, summary: Summary | None = None
) -> SearchEnded:
    """Say that a session has ended.

    Args:
        uid: Of the run of the search.
        now_s: When, seconds since the epoch.
        status: MLflow's word; None where another session goes on.
        summary: What the search found; None where nobody is left to tell.
    """
    finished_ms = round(now_s * _MS_PER_S)
    if summary is None:
        return SearchEnded(uid=uid, finished_ms=finished_ms, status=status)
    front = summary.front
    trials = len(summary.growth)
    table = json.dumps(data_of_front(front, summary.verdicts), indent=1)
    return SearchEnded(
        uid=uid,
        finished_ms=finished_ms,
        status=status,
        tags=(("mlflow.note.content", _markdown_of_front(front)),),
        metrics=(("trials", float(trials)), ("front_members", float(len(front.members)))),
        step=trials,
        texts=(
            ("front.json", table),
            ("front.csv", csv_of_records(front.members)),
            ("hypervolume.csv", csv_of_growth(summary.growth)),
        ),
        files=() if summary.picture is None else (PICTURE,),
    )


def point_of(facts: SearchFacts, one: GrowthPoint) -> Point:
    """Say how the curve of the search goes on with a trial."""
    return Point(
        search=facts.uid,
        metric=HYPERVOLUME,
        value=one.volume,
        step=one.number,
        time_ms=round(one.finished_s * _MS_PER_S),
    )


def _markdown_of_front(front: Front) -> str:
    """Write the front as a table, which MLflow shows as the description of the run."""
    heads = ["trial", "deployment", *(one.metric.label for one in front.objectives)]
    rows = [heads, ["---"] * len(heads)]
    for record in front.members:
        assert isinstance(record.outcome, Completed)
        values = [text_of(record.outcome.metric(one.metric.name)) for one in front.objectives]
        rows.append([str(record.number), short(record.outcome.deployment), *values])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    shown = list(takewhile(lambda size: size < _DESCRIPTION, accumulate(map(len, lines))))
    table = "\n".join(lines[: len(shown)])
    more = "" if len(shown) == len(lines) else "\n\nThe whole front is in `front.csv`."
    if not front.members:
        return "No deployment is on the front yet."
    return f"The front, with 95 % intervals:\n\n{table}{more}"
