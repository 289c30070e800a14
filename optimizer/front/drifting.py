"""Which trials of a study lie where the machine was not as it was before, by its sentinel."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from optimizer.study.records import TrialRecord
from search_spaces.deployment import Deployment
from trials.measurement import Estimate
from trials.measuring.sentinel import Sighting, doubtful, ratios_of
from trials.outcome import Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What the sentinel says of the trials of one machine.

    Attributes:
        sightings: How often it was measured.
        fastest: Least latency over the usual one, likewise ``slowest`` the largest.
        doubtful: Numbers of trials beside a sighting at which the machine was not as usual.
        trials: How many trials have a sighting.
        is_blind: It is so slow that its sightings cannot tell.
    """

    sentinel: Deployment
    sightings: int
    fastest: Estimate
    slowest: Estimate
    doubtful: tuple[int, ...]
    trials: int
    is_blind: bool


def watches_of(records: Iterable[TrialRecord]) -> Iterator[Watch]:
    """Judge the sightings that trials carry, machine by machine.

    Args:
        records: Ended trials, in any order; those that were not measured say nothing.
    """
    machines: defaultdict[tuple[str, Deployment], list[tuple[TrialRecord, Sighting]]]
    machines = defaultdict(list)
    for record in records:
        outcome = record.outcome
        if isinstance(outcome, Completed) and outcome.sentinel is not None:
            host = dict(outcome.environment.facts).get("host", "")
            machines[host, outcome.sentinel.deployment].append((record, outcome.sentinel))
    for (_, sentinel), watched in sorted(machines.items(), key=lambda item: item[0][0]):
        yield _watch(sentinel, watched)


def _watch(sentinel: Deployment, watched: Sequence[tuple[TrialRecord, Sighting]]) -> Watch:
    sightings = sorted({each for _, each in watched}, key=lambda each: each.at_s)
    ratios = ratios_of(sightings)
    doubt = dict(zip(sightings, doubtful(sightings), strict=True))
    return Watch(
        sentinel=sentinel,
        sightings=len(sightings),
        fastest=min(ratios, key=lambda ratio: ratio.value),
        slowest=max(ratios, key=lambda ratio: ratio.value),
        doubtful=tuple(sorted(record.number for record, each in watched if doubt[each])),
        trials=len(watched),
        is_blind=all(ratio.low is None for ratio in ratios),
    )
