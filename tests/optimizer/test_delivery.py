"""In which order what waits is delivered, and what one refusal means for the others."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking_fakes import ListeningPublisher, a_trial, put, some_blocks

from optimizer.errors import TrackingError, UnavailableError
from optimizer.tracking.delivery import Delivery
from optimizer.tracking.ledger import Ledger
from optimizer.tracking.messages import (
    CertificateGiven,
    CertifiedTrial,
    FrontFound,
    SearchEnded,
    VerdictGiven,
)
from optimizer.tracking.patience import Patience
from optimizer.tracking.publisher import Result
from optimizer.tracking.spool import Parcel, Spool


@dataclass
class Clock:
    """A clock that a test moves."""

    now_s: float = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def publisher() -> ListeningPublisher:
    return ListeningPublisher()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def delivery(spool: Spool, publisher: ListeningPublisher, clock: Clock) -> Delivery:
    ledger = Ledger(spool.folder)
    return Delivery(spool, ledger, lambda: publisher, step=nullcontext, clock=clock)


def trials(spool: Spool, *uids: str) -> list[str]:
    return [put(spool, a_trial(uid)) for uid in uids]


def refusal(uid: str) -> dict[str, Exception]:
    return {uid: TrackingError(f"{uid} is too large", hint="make it smaller")}


def test_records_are_delivered_in_order_and_then_gone(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    trials(spool, "a", "b", "c")

    again_s = delivery.attempt()

    assert again_s is None
    assert publisher.told == ["trial a", "trial b", "trial c"]
    assert spool.waiting() == ()
    assert set(Ledger(spool.folder).read()) == {"trial-a", "trial-b", "trial-c"}
    assert delivery.tally.delivered == 3


def test_ledger_says_which_trials_went_with_their_blocks(
    spool: Spool, delivery: Delivery, tmp_path: Path
) -> None:
    blocks = some_blocks(tmp_path / "b.parquet")
    put(spool, a_trial("with", files=("b.parquet",), blocks="b.parquet"), {"b.parquet": blocks})
    put(spool, a_trial("without"))

    delivery.attempt()

    kept = {label: entry.blocks for label, entry in Ledger(spool.folder).read().items()}
    assert kept == {"trial-with": True, "trial-without": False}


def test_refused_record_waits_and_holds_nobody_up(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    _, poison, _ = trials(spool, "a", "poison", "c")
    publisher.troubles = refusal("poison")

    again_s = delivery.attempt()

    assert publisher.told == ["trial a", "trial c"]
    assert spool.waiting() == (poison,)
    assert delivery.tally.refused == {poison: "poison is too large"}
    assert again_s == 1.0


def test_refused_record_is_tried_again_after_pauses_that_double(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery, clock: Clock
) -> None:
    trials(spool, "poison")
    publisher.troubles = refusal("poison")

    pauses_s = []
    for _ in range(8):
        pause_s = delivery.attempt()
        assert pause_s is not None
        pauses_s.append(pause_s)
        clock.now_s += pause_s

    assert pauses_s == [1, 2, 4, 8, 16, 30, 30, 30]
    assert len(publisher.tried) == 8


def test_attempt_before_the_pause_is_over_tries_nothing(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    trials(spool, "poison")
    publisher.troubles = refusal("poison")
    delivery.attempt()

    delivery.attempt()

    assert publisher.tried == ["trial poison"]


def test_later_record_of_the_same_run_waits_for_the_earlier(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery, clock: Clock
) -> None:
    trials(spool, "a", "b")
    put(spool, VerdictGiven(uid="a", metrics=()))
    publisher.troubles = refusal("a")
    delivery.attempt()
    told_at_first = list(publisher.told)
    publisher.troubles = {}
    clock.now_s += 1

    while delivery.attempt() is not None:
        pass

    assert told_at_first == ["trial b"]
    assert publisher.told == ["trial b", "trial a", "verdict a"]


def a_certificate(words: str, *uids: str) -> CertificateGiven:
    trials = tuple(CertifiedTrial(uid=uid, tags=(), metrics=()) for uid in uids)
    return CertificateGiven(uid="study", search="s", words=words, at_ms=1, trials=trials)


def test_certificate_waits_for_its_trials(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery, clock: Clock
) -> None:
    """Else nobody would ever tell the run that is made later."""
    trials(spool, "a")
    certificate = put(spool, a_certificate("certified", "a"))
    publisher.troubles = refusal("a")
    delivery.attempt()
    waited = certificate in spool.waiting()
    publisher.troubles = {}
    clock.now_s += 1

    while (pause_s := delivery.attempt()) is not None:
        clock.now_s += pause_s

    assert waited
    assert publisher.told[-2:] == ["trial a", "certificate study"]


def test_of_several_certificates_only_the_latest_is_told(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    for words in ("first", "second"):
        put(spool, a_certificate(words))

    assert delivery.attempt() is None

    assert publisher.told == ["certificate study"]
    assert spool.waiting() == ()


def test_record_that_was_not_tried_because_an_earlier_one_waits_says_so(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery, clock: Clock
) -> None:
    """Else whoever waits for it does not know that there is nothing to wait for."""
    (trial,) = trials(spool, "a")
    verdict = put(spool, VerdictGiven(uid="a", metrics=()))
    publisher.troubles = refusal("a")
    delivery.attempt()
    refused = dict(delivery.tally.refused)
    publisher.troubles = {}
    clock.now_s += 1
    delivery.attempt()
    delivery.attempt()

    assert refused == {
        trial: "a is too large",
        verdict: "an earlier record of the same run waits",
    }
    assert delivery.tally.refused == {}


def test_mlflow_that_does_not_answer_is_left_alone_and_everything_waits(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    trials(spool, "a", "b", "c")
    publisher.troubles = {"a": UnavailableError("it is down", hint="start it")}

    again_s = delivery.attempt()

    assert publisher.tried == ["trial a"]
    assert len(spool.waiting()) == 3
    assert delivery.tally.trouble == ("it is down", "start it")
    assert again_s == 1.0


def test_record_that_makes_mlflow_hang_each_time_goes_behind_the_others(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery, clock: Clock
) -> None:
    trials(spool, "hangs", "b", "c")
    publisher.troubles = {"hangs": UnavailableError("no answer")}
    delivery.attempt()
    clock.now_s += 1

    delivery.attempt()

    assert publisher.told == ["trial b", "trial c"]


def test_mlflow_that_refuses_several_records_in_a_row_is_left_alone(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    """A full disk on its side refuses them all; a thousand requests a second mend nothing."""
    trials(spool, *"abcdefgh")
    publisher.troubles = {uid: TrackingError("disk full") for uid in "abcdefgh"}

    delivery.attempt()

    assert publisher.tried == ["trial a", "trial b", "trial c"]
    assert delivery.tally.trouble[0] == "disk full"


@settings(deadline=None, max_examples=25)
@given(poison=st.sets(st.integers(0, 9), max_size=9))
def test_every_sound_record_is_delivered_however_many_are_refused(
    tmp_path_factory: pytest.TempPathFactory, poison: set[int]
) -> None:
    spool, clock = Spool(tmp_path_factory.mktemp("spool")), Clock()
    trials(spool, *(str(number) for number in range(10)))
    publisher = ListeningPublisher({str(one): TrackingError("refused") for one in poison})
    delivery = Delivery(
        spool, Ledger(spool.folder), lambda: publisher, step=nullcontext, clock=clock
    )

    for _ in range(20):
        clock.now_s += delivery.attempt() or 0

    assert set(publisher.told) == {f"trial {one}" for one in set(range(10)) - poison}
    assert len(publisher.told) == 10 - len(poison)
    assert len(spool.waiting()) == len(poison)


def test_success_ends_the_trouble(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery, clock: Clock
) -> None:
    trials(spool, "a")
    publisher.troubles = {"a": UnavailableError("it is down")}
    delivery.attempt()
    publisher.troubles = {}
    clock.now_s += 1

    delivery.attempt()

    assert delivery.tally.trouble == ("", "")
    assert delivery.tally.refused == {}


def test_mlflow_that_cannot_be_opened_is_opened_again_later(spool: Spool, clock: Clock) -> None:
    trials(spool, "a")
    publisher, tries = ListeningPublisher(), []

    def opened() -> ListeningPublisher:
        tries.append(1)
        if len(tries) == 1:
            raise TrackingError("the database is older", hint="upgrade it")
        return publisher

    delivery = Delivery(spool, Ledger(spool.folder), opened, step=nullcontext, clock=clock)
    delivery.attempt()
    trouble = delivery.tally.trouble
    clock.now_s += 1
    delivery.attempt()

    assert trouble == ("the database is older", "upgrade it")
    assert publisher.told == ["trial a"]


def test_bug_in_one_record_is_told_in_a_line_and_holds_nobody_up(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    """Artifact stores throw what they like; a courier that dies of it would deliver no more."""
    bad, _ = trials(spool, "bad", "b")
    publisher.troubles = {"bad": ZeroDivisionError("of somebody's plugin\nwith more lines")}

    delivery.attempt()

    assert publisher.told == ["trial b"]
    assert delivery.tally.refused == {bad: "ZeroDivisionError: of somebody's plugin"}


def test_mlflow_that_answers_again_is_in_no_trouble_though_it_refuses(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery, clock: Clock
) -> None:
    trials(spool, "a")
    publisher.troubles = {"a": UnavailableError("it is down")}
    delivery.attempt()
    publisher.troubles = refusal("a")
    clock.now_s += 1

    delivery.attempt()

    assert delivery.tally.trouble == ("", "")
    assert list(delivery.tally.refused.values()) == ["a is too large"]


def test_record_that_cannot_be_read_is_refused_and_the_others_are_delivered(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    broken, _ = trials(spool, "broken", "b")
    (spool.folder / "waiting" / broken / "envelope.json").write_text("{}")

    delivery.attempt()

    assert publisher.told == ["trial b"]
    assert "is not as it was written" in delivery.tally.refused[broken]


def test_front_is_marked_again_when_its_last_member_has_come(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery, clock: Clock
) -> None:
    trials(spool, "late", "there")
    put(spool, FrontFound(uid="study", members=("late", "there")))
    publisher.troubles = refusal("late")
    delivery.attempt()
    waiting = [name.partition("-")[2] for name in spool.waiting()]
    publisher.troubles = {}
    clock.now_s += 2
    delivery.attempt()

    assert waiting == ["trial-late", "front-study"]
    assert publisher.told == ["trial there", "front study", "trial late", "front study"]
    assert spool.waiting() == ()


def test_front_that_a_later_one_replaces_is_not_marked_any_more(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    for members in ((), ("a",), ("a", "b")):
        put(spool, FrontFound(uid="study", members=members))

    delivery.attempt()

    assert publisher.told == ["front study"]
    assert spool.waiting() == ()


def test_two_ends_of_a_search_are_both_told(
    spool: Spool, publisher: ListeningPublisher, delivery: Delivery
) -> None:
    for status in ("KILLED", "FINISHED"):
        put(spool, SearchEnded(uid="s", finished_ms=0, status=status))

    delivery.attempt()

    assert publisher.told == ["end s", "end s"]


def test_killed_between_the_ledger_and_the_removal_it_is_told_once_more(
    spool: Spool, publisher: ListeningPublisher
) -> None:
    """Whoever publishes finds that it is there already."""
    (name,) = trials(spool, "a")

    @dataclass
    class Dying:
        def publish(self, parcel: Parcel) -> Result:
            result = publisher.publish(parcel)
            (spool.folder / "gone").write_text("in the way")  # the removal fails
            return result

    Delivery(spool, Ledger(spool.folder), Dying, step=nullcontext).attempt()
    (spool.folder / "gone").unlink()
    left = spool.waiting()
    Delivery(spool, Ledger(spool.folder), lambda: publisher, step=nullcontext).attempt()

    assert left == (name,)
    assert publisher.told == ["trial a", "trial a"]
    assert spool.waiting() == ()


def test_work_between_records_is_done_inside_steps(
    spool: Spool, publisher: ListeningPublisher
) -> None:
    """Whatever is done outside a step is done beside a measurement."""
    trials(spool, "a", "b")
    inside: list[bool] = []

    class Step:
        def __enter__(self) -> None:
            inside.append(True)

        def __exit__(self, *_: object) -> None:
            inside.append(False)

    @dataclass
    class Watching(Spool):
        def __init__(self) -> None:
            super().__init__(spool.folder)

        def read(self, name: str) -> Parcel:
            assert inside[-1]
            return super().read(name)

        def remove(self, name: str) -> None:
            assert inside[-1]
            super().remove(name)

        def waiting(self) -> tuple[str, ...]:
            assert inside[-1]
            return super().waiting()

    delivery = Delivery(Watching(), Ledger(spool.folder), lambda: publisher, step=Step)

    delivery.attempt()

    assert publisher.told == ["trial a", "trial b"]
    assert inside[-1] is False


def test_pauses_of_records_that_are_gone_are_forgotten() -> None:
    patience = Patience(Clock())
    patience.record_failed("0000000001-trial-a")

    patience.forget_all_but([])

    assert patience.is_due("0000000001-trial-a")
