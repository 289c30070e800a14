"""Notes in Markdown: what a colleague reads first, and no name that breaks a table."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice

from search_fakes import completed, failed, infeasible, measured, record_of

from optimizer.certifying.certificate import Certificate, Certified
from optimizer.dashboard.notes import note_of_study, note_of_trial
from optimizer.front.front import Front, front_of
from optimizer.study.records import TrialRecord
from search_spaces.deployment import Deployment, Precision
from search_spaces.space import SearchSpace
from trials.measurement import Estimate, Quality
from trials.outcome import Completed


def a_front(space: SearchSpace, count: int = 20) -> Front:
    records = [
        record_of(number, measured(one))
        for number, one in enumerate(islice(space.deployments(), count))
    ]
    ghost = record_of(count, infeasible(next(space.deployments())))
    return front_of([*records, ghost], space.objectives, space.constraints)


def study_note(
    front: Front,
    space: SearchSpace,
    verdicts: Mapping[int, Quality] | None = None,
    *,
    certificate: Certificate | None = None,
    digests: Mapping[str, str] | None = None,
) -> str:
    return note_of_study(
        front,
        space,
        name="tiny",
        verdicts=verdicts or {},
        certificate=certificate,
        digests=digests or {"variant:small": "a" * 64},
        environment={"onnxruntime": "1.22"},
    )


def trial_note(record: TrialRecord, space: SearchSpace, verdict: Quality | None = None) -> str:
    return note_of_trial(record, space, verdict=verdict, certified=None, pictures=())


def a_verdict() -> Quality:
    right = Estimate(value=0.9012, low=0.89, high=0.91)
    return Quality(split="report", split_digest="r", samples=500, scores=(("accuracy", right),))


def test_note_of_a_study_says_what_was_asked_of_what_and_where(space: SearchSpace) -> None:
    note = study_note(a_front(space), space)

    assert note.startswith("# tiny\n")
    assert "minimize p99 latency" in note
    assert r"accuracy \>= 0.7" in note
    assert "| precision | fp32, int8 |" in note
    assert f"| variant:small | {'a' * 64} |" in note
    assert "| onnxruntime | 1.22 |" in note


def test_note_of_a_study_lists_the_front_with_intervals_verdicts_and_the_knee(
    space: SearchSpace,
) -> None:
    front = a_front(space)
    assert front.knee is not None

    note = study_note(front, space, {front.knee.number: a_verdict()})

    rows = [line for line in note.splitlines() if line.startswith(("| \\*", "| 0", "| 1"))]
    knee = next(row for row in rows if row.startswith(rf"| \*{front.knee.number} "))
    assert knee.endswith(r"| 0.901 \[0.89, 0.91\] |")
    assert "top-1 accuracy on the report split" in note
    assert "1 infeasible" in note
    assert "1 × infeasible (memory): needs 25 GB of 24 GB" in note


def test_note_of_a_study_tells_its_certificate_with_the_speeds_over_sessions(
    space: SearchSpace,
) -> None:
    front = a_front(space)
    assert front.knee is not None
    certificate = Certificate(
        at_s=0.0,
        sessions=3,
        decided=False,
        trials=20,
        contended=0.25,
        candidates=(a_certified(front.knee.number),),
    )

    note = study_note(front, space, certificate=certificate)

    assert "## Certificate" in note
    assert "- certified 1970-01-01 in 3 sessions, not decided" in note
    assert "25% of the measurements" in note
    row = next(line for line in note.splitlines() if line.startswith(f"| {front.knee.number} "))
    assert "| 97 % | 3 | 2 \\[1.5, 2.5\\] | 500 \\[450, 550\\] |" in row


def test_note_of_a_trial_tells_what_the_certificate_says_of_it(space: SearchSpace) -> None:
    record = record_of(3, measured(next(space.deployments())))

    note = note_of_trial(record, space, verdict=None, certified=a_certified(3), pictures=())

    assert "### certified, in 3 sessions" in note
    assert "| on front | 97 % |" in note
    assert "| p99 latency \\[ms\\] | 2 \\[1.5, 2.5\\] |" in note


def a_certified(number: int) -> Certified:
    return Certified(
        trial=number,
        probability=0.97,
        sessions=3,
        speeds=(
            ("latency_p99_ms", Estimate(value=2.0, low=1.5, high=2.5)),
            ("throughput_sps", Estimate(value=500.0, low=450.0, high=550.0)),
        ),
    )


def test_long_front_is_cut_and_says_so(space: SearchSpace) -> None:
    front = a_front(space)
    long = replace(front, candidates=front.candidates[:1] * 75)

    note = study_note(long, space)

    assert "and 15 more; `trifront front` lists them all" in note


def test_note_of_a_trial_has_deployment_metrics_flags_bounds_and_verdict(
    space: SearchSpace,
) -> None:
    deployment = next(space.deployments())
    outcome = completed(deployment, latency_ms=2.0, sps=500.0, accuracy=0.8)
    record = record_of(3, replace(outcome, flags=("contended",)))

    note = trial_note(record, space, a_verdict())

    assert note.startswith("## large fp32 b1 c1 threads=1\n")
    assert r"- meets accuracy \>= 0.7: 0.8" in note
    assert "| batch\\_size | 1 |" in note
    assert r"| p99 latency \[ms\] | 2 \[1.98, 2.02\] |" in note
    assert "(contended)" in note
    assert "on the report split, 500 samples" in note


def test_trial_that_misses_a_bound_says_which(space: SearchSpace) -> None:
    outcome = completed(next(space.deployments()), latency_ms=2.0, sps=500.0, accuracy=0.5)

    assert r"**misses** accuracy \>= 0.7: 0.5" in trial_note(record_of(3, outcome), space)


def test_trial_that_was_not_measured_says_why(space: SearchSpace) -> None:
    deployment = next(space.deployments())

    cannot = trial_note(record_of(1, infeasible(deployment)), space)
    broke = trial_note(record_of(2, failed(deployment)), space)

    assert "infeasible" in cannot
    assert "| memory | needs 25 GB of 24 GB |" in cannot
    assert "| crash | killed by SIGSEGV |" in broke


def test_pictures_stand_in_the_note(space: SearchSpace) -> None:
    record = record_of(1, measured(next(space.deployments())))

    note = note_of_trial(
        record, space, verdict=None, certified=None, pictures=["/artifacts/1/2/2-ab"]
    )

    assert note.rstrip().endswith("![](/artifacts/1/2/2-ab)")


def test_name_with_a_pipe_a_tag_or_a_line_break_breaks_no_table(space: SearchSpace) -> None:
    odd = Deployment(
        variant="a|b <img>\n# c",
        precision=Precision.FP32,
        batch_size=1,
        concurrency=1,
        options=(("threads", 1),),
    )
    record = record_of(1, measured(odd))
    assert isinstance(record.outcome, Completed)

    note = trial_note(record, space)

    assert r"| variant | a\|b \<img\> \# c |" in note
    assert "<img>" not in note.replace(r"\<img\>", "")
