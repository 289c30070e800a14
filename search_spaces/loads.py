"""How deployments are loaded and measured: the load axes and the plan, checked together."""

from collections.abc import Iterator, Sequence
from math import inf

from search_spaces.arrivals import Arrivals, PoissonArrivals, cycle_s
from search_spaces.arrivals_document import arrivals_from_document
from search_spaces.deployment import CLOSED, OPEN, plain_rate
from search_spaces.document import AxesDocument, MeasureDocument
from search_spaces.errors import SpaceError
from search_spaces.inputs import Inputs
from search_spaces.rules import Rule, rule_from_text
from search_spaces.space import Axis, MeasuringPlan

_LEAST_CYCLES = 2  # of a pattern that repeats, within a measurement


def load_axes(document: AxesDocument) -> Iterator[Axis]:
    """Yield the axes of an open load, none for a closed one.

    Raises:
        SpaceError: Both loads in one space, a rate or delay for a closed one, or none for an open
            one.
    """
    if len(document.load) > 1:
        raise SpaceError(
            "an open and a closed loop ask different questions, so their numbers cannot stand on "
            "one front; write two spaces",
            key="axes.load",
        )
    if document.load == [CLOSED]:
        for name, value in (
            ("rate_rps", document.rate_rps),
            ("max_queue_delay_us", document.max_queue_delay_us),
        ):
            if value is not None:
                raise SpaceError(
                    "a closed loop sends the next request when one is answered, so it has no "
                    f"{name}; write load: [open] or remove the key",
                    key=f"axes.{name}",
                )
        return
    if document.rate_rps is None:
        raise SpaceError(
            "is missing, and load: [open] needs it; write the rates to try, as [100, 200]",
            key="axes.rate_rps",
        )
    yield Axis(name="load", values=(OPEN,))
    yield Axis(name="rate_rps", values=tuple(map(plain_rate, sorted(document.rate_rps))))
    yield Axis(name="max_queue_delay_us", values=tuple(sorted(document.max_queue_delay_us or [0])))


def load_rules(axes: Sequence[Axis]) -> Iterator[Rule]:
    """Yield what is true of every open load: who takes single requests waits for no others.

    Without it, such deployments would be tried once for each delay, as if they differed.
    """
    values = {axis.name: axis.values for axis in axes}
    delays = values.get("max_queue_delay_us", ())
    if len(delays) > 1 and 1 in values["batch_size"]:
        text = f"batch_size > 1 or max_queue_delay_us == {delays[0]}"
        yield rule_from_text(text, axes=[axis.name for axis in axes])


def plan_from_document(
    document: MeasureDocument, axes: AxesDocument, inputs: Inputs
) -> MeasuringPlan:
    """Check how long and how well is measured, against the load.

    Raises:
        SpaceError: Times that contradict each other, or what only an open load has beside a
            closed one.
    """
    _check_times(document)
    arrivals = _arrivals(document, axes, inputs)
    fields = document.model_dump(exclude={"arrivals", "preferred_batch_sizes"})
    return MeasuringPlan(
        **fields, arrivals=arrivals, preferred_batch_sizes=_preferred(document, axes)
    )


def _check_times(document: MeasureDocument) -> None:
    least_s = document.min_blocks * document.block_s
    if least_s > document.max_s:
        raise SpaceError(
            f"{document.max_s:g} s are too short for {document.min_blocks} blocks of "
            f"{document.block_s:g} s; write at least {least_s:g}",
            key="measure.max_s",
        )
    if document.deadline_s <= document.max_s:
        raise SpaceError(
            f"{document.deadline_s:g} s would kill a trial that measures for max_s = "
            f"{document.max_s:g} s; write more",
            key="measure.deadline_s",
        )


def _arrivals(document: MeasureDocument, axes: AxesDocument, inputs: Inputs) -> Arrivals | None:
    if axes.load == [CLOSED]:
        _refuse_for_closed(document.arrivals, key="measure.arrivals")
        return None
    slowest = min(axes.rate_rps or [inf])
    if slowest * document.max_s < document.min_blocks:
        raise SpaceError(
            f"at {slowest:g} requests/s only {slowest * document.max_s:.0f} come within max_s = "
            f"{document.max_s:g} s; write a rate of at least "
            f"{document.min_blocks / document.max_s:g} or raise measure.max_s",
            key="axes.rate_rps",
        )
    if document.arrivals is None:
        return PoissonArrivals()
    arrivals = arrivals_from_document(document.arrivals, inputs)
    cycle = cycle_s(arrivals)
    if cycle is not None and _LEAST_CYCLES * cycle > document.max_s:
        raise SpaceError(
            f"repeats after {cycle:g} s, and max_s = {document.max_s:g} s holds it less than "
            f"{_LEAST_CYCLES} times; make it shorter or raise measure.max_s",
            key="measure.arrivals",
        )
    return arrivals


def _preferred(document: MeasureDocument, axes: AxesDocument) -> tuple[int, ...]:
    if axes.load == [CLOSED]:
        _refuse_for_closed(document.preferred_batch_sizes, key="measure.preferred_batch_sizes")
    preferred = sorted(document.preferred_batch_sizes or [])
    largest = max(axes.batch_size)
    if preferred and preferred[-1] > largest:
        raise SpaceError(
            f"{preferred[-1]} is larger than any batch; write at most {largest}, the largest "
            "batch_size",
            key="measure.preferred_batch_sizes",
        )
    return tuple(preferred)


def _refuse_for_closed(value: object, *, key: str) -> None:
    if value is not None:
        raise SpaceError(
            "is for load: [open] alone, a closed loop sends the next request when one is "
            "answered; remove the key or write axes.load: [open]",
            key=key,
        )
