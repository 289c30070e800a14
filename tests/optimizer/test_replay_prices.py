"""Where the seconds of measured trials went."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from search_fakes import completed, failed, infeasible, record_of

from optimizer.errors import TableError
from optimizer.replaying.pricing import Pricing
from optimizer.study.records import TrialRecord
from search_spaces.deployment import KEEP_LAYERS, Deployment, Precision
from trials.backend import KEEP_LAYERS_OPTION, Capabilities, Option, Scope
from trials.measurement import Costs
from trials.outcome import Completed
from trials.store.entries import Entry, Kind

SERVING = Option(name="threads", scope=Scope.SERVING, default=1, help="")
CAPABILITIES = Capabilities(
    precisions=(Precision.FP32, Precision.INT8),
    options=(SERVING, KEEP_LAYERS_OPTION, replace(SERVING, name="level", scope=Scope.ENGINE)),
)
BY_BATCH = replace(CAPABILITIES, batch_in_engine=True)


def deployment(batch_size: int = 1, **options: int) -> Deployment:
    return Deployment(
        variant="cnn",
        precision=Precision.INT8,
        batch_size=batch_size,
        concurrency=1,
        options=tuple(sorted(options.items())),
    )


def ran(
    one: Deployment, *, convert_s: float = 0, build_s: float = 0, score_s: float = 0
) -> Completed:
    """Measure a deployment that paid for what is given, and found the rest in the store."""
    costs = Costs(
        convert_s=convert_s,
        build_s=build_s,
        score_s=score_s,
        load_s=0.25,
        cold_call_s=0.1,
        measure_s=2.0,
    )
    return replace(completed(one, latency_ms=1, sps=1, accuracy=1), costs=costs)


def lasting(number: int, outcome: object, seconds: float, *, begun_s: float = 0.0) -> TrialRecord:
    record = record_of(number, outcome)  # type: ignore[arg-type] # any outcome
    return replace(record, started_s=begun_s, finished_s=begun_s + seconds)


def entry(
    kind: Kind,
    make_s: float,
    *,
    key: str = "k",
    sha256: str = "",
    parts: object = None,
    at_s: float = -1.0,
) -> Entry:
    return Entry(
        kind=kind,
        key=key,
        path=Path("payload"),
        parts=json.dumps(parts),
        sha256=sha256,
        size_bytes=1,
        created_s=at_s,
        used_s=at_s,
        make_s=make_s,
    )


def priced(records: Sequence[TrialRecord], *entries: Entry) -> Pricing:
    return Pricing(records, CAPABILITIES, entries)


def test_first_trial_pays_for_all_and_every_deployment_knows_the_price() -> None:
    first = lasting(0, ran(deployment(1), convert_s=3, build_s=40, score_s=2), 50)
    later = lasting(1, ran(deployment(8)), 3)
    pricing = priced([first, later])

    assert pricing.shared(deployment(8)) == pricing.shared(deployment(1))
    assert pricing.shared(deployment(1)).build_s == 40
    own = [pricing.own([one]) for one in (first, later)]
    assert [(one.load_s, one.measure_s) for one in own] == [(0.25, 2.0)] * 2
    assert [one.other_s for one in own] == pytest.approx([50 - 45 - 2.25, 3 - 2.25])


def test_engine_that_was_there_before_costs_what_the_store_remembers() -> None:
    """Also after another study built it, and whoever scored it."""
    outcome = ran(deployment())
    assert outcome.quality is not None
    spec = {"model_digest": outcome.engine.model_digest}
    scored = {"engine": spec, "split": outcome.quality.split_digest}

    pricing = priced(
        [lasting(0, outcome, 3)],
        entry("model", 5.0, sha256=outcome.engine.model_digest),
        entry("engine", 30.0, key=outcome.engine.engine_key, parts=spec),
        entry("quality", 7.0, parts=scored),
        entry("quality", 99.0, parts=scored | {"split": "another"}),
        entry("engine", 99.0, key="another", parts=spec),
    )

    shared = pricing.shared(deployment())
    assert (shared.convert_s, shared.build_s, shared.score_s) == (5.0, 30.0, 7.0)


def test_model_that_a_conversion_leaves_as_it_is_costs_what_the_conversion_did() -> None:
    outcome = ran(deployment(), build_s=1, score_s=1)
    digest = outcome.engine.model_digest

    pricing = priced(
        [lasting(0, outcome, 5)],
        entry("model", 0.5, sha256=digest, at_s=20),
        entry("model", 99.0, sha256=digest, at_s=10),  # where it came from
    )

    assert pricing.shared(deployment()).convert_s == 0.5


def test_price_that_nobody_knows_any_more_is_said_with_its_trial() -> None:
    pricing = priced([lasting(7, ran(deployment(), convert_s=1, score_s=1), 3)])

    with pytest.raises(
        TableError, match="what building engine 'cnn int8' costs is unknown: trial 7"
    ):
        pricing.shared(deployment())


def test_inspection_of_an_engine_remembers_its_build() -> None:
    outcome = ran(deployment(), convert_s=1, score_s=1)
    record = lasting(0, outcome, 3)

    pricing = Pricing([record], CAPABILITIES, [], [(outcome.engine.engine_key, 12.0)])

    assert pricing.shared(deployment()).build_s == 12.0


def test_engines_differ_by_what_their_backend_builds_into_them() -> None:
    ends = [
        deployment(1),
        deployment(8),
        deployment(1, threads=2),
        deployment(1, level=2),
        deployment(1, **{KEEP_LAYERS: 2}),
    ]
    records = [
        lasting(number, ran(one, convert_s=1, build_s=1, score_s=1), 9)
        for number, one in enumerate(ends)
    ]

    names = [
        [Pricing(records, each, []).shared(one).engine for one in ends]
        for each in (CAPABILITIES, BY_BATCH)
    ]

    assert names[0] == [
        "cnn int8",
        "cnn int8",
        "cnn int8",
        "cnn int8 level=2",
        "cnn int8 keep_layers=2",
    ]
    assert names[1][:3] == ["cnn int8 b1", "cnn int8 b8", "cnn int8 b1"]


def test_models_of_the_same_content_are_one() -> None:
    """As fp32 and tf32 are, which differ in the engine alone."""
    other = replace(deployment(), precision=Precision.FP32)
    records = [
        lasting(0, ran(deployment(), convert_s=4, build_s=1, score_s=1), 9),
        lasting(1, ran(other, build_s=1, score_s=1), 9),
    ]
    pricing = priced(records)

    shared = [pricing.shared(one) for one in (deployment(), other)]

    assert shared[0].model == shared[1].model == "cnn int8"
    assert shared[0].engine != shared[1].engine
    assert shared[1].convert_s == 4


def test_infeasible_trial_pays_for_what_was_made_while_it_lasted() -> None:
    does_not_fit = lasting(0, infeasible(deployment(8)), 60, begun_s=100)
    fits = lasting(1, ran(deployment(1), score_s=2), 5, begun_s=200)
    outcome = fits.outcome
    assert isinstance(outcome, Completed)
    pricing = priced(
        [does_not_fit, fits],
        entry("model", 8.0, sha256=outcome.engine.model_digest, at_s=110),
        entry("engine", 45.0, key=outcome.engine.engine_key, at_s=158),
    )

    own = pricing.own([does_not_fit])

    assert asdict(own) == {"load_s": 0, "measure_s": 0, "other_s": pytest.approx(60 - 53)}
    assert pricing.shared(deployment(8)).build_s == 45


def test_what_the_builder_took_to_refuse_is_the_price_of_the_engine() -> None:
    def refused(number: int, seconds: float) -> TrialRecord:
        outcome = replace(infeasible(deployment(2**number)), kind="unsupported")
        return lasting(number, outcome, seconds, begun_s=100.0 * number)

    records = [refused(0, 30), refused(1, 1), refused(2, 2)]
    pricing = priced(records, entry("model", 4.0, at_s=5))

    shared = pricing.shared(deployment(1))
    own_s = [pricing.own([one]).other_s for one in records]
    assert shared.convert_s == 4
    assert shared.build_s == pytest.approx(30 - 4 - 1.5)
    assert shared.score_s == 0
    assert own_s == pytest.approx([1.5, 1, 2])


def test_deployment_that_always_failed_costs_all_its_tries() -> None:
    tries = [lasting(0, failed(deployment()), 4), lasting(1, failed(deployment()), 6)]

    assert priced(tries).own(tries).other_s == 10


def test_clock_that_went_back_makes_nothing_negative() -> None:
    record = lasting(0, ran(deployment(), convert_s=3, build_s=40, score_s=2), 1)

    assert priced([record]).own([record]).other_s == 0
