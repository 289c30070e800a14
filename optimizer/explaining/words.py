"""An explanation in sentences and tables for people, and as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from optimizer.explaining.explain import Belief, Explanation, Reason
from optimizer.front.words import number, short
from search_spaces.metrics import METRICS

if TYPE_CHECKING:
    from rich.table import Table

_GOAL = 0.95  # of intervals that say 95 %
_SURE = 0.995  # rounds to 100 %
_FEWEST = 20  # predictions before their coverage says anything


def lines_of_reasons(reasons: tuple[Reason, ...]) -> Iterator[str]:
    """Yield a paragraph for each trial: why it was tried, what was expected and what came."""
    for reason in reasons:
        yield f"{reason.number:4} {short(reason.deployment)}"
        yield f"     {why(reason)}"
        if reason.expected:
            yield f"     expected {', '.join(_expected(reason))}"
        if reason.measured:
            values = (f"{name} {number(value)}" for name, value in reason.measured)
            yield f"     measured {', '.join(values)}"
        else:
            yield "     could not be measured"


def why(reason: Reason) -> str:
    """Say in a sentence why a deployment was, or should be, tried."""
    if reason.is_early:
        return "to learn from: too little was known to expect anything"
    if reason.gain is None or reason.rank is None:
        return "nothing was expected of it: tried before, or not looked at in a very large space"
    price = f"for about {reason.own_s:.2g} s"
    if reason.shared_s:
        price += f" and {reason.shared_s:.2g} s for a new engine"
    place = "the most for its price" if reason.rank == 1 else f"place {reason.rank} by price"
    gain = f"expected to add {reason.gain:.2%} of the box to the hypervolume {price}"
    if reason.gain <= 0:
        place, gain = "no gain expected of any", f"it was hoped for, or known least, {price}"
        if reason.rank != 1:
            place, gain = "no gain expected of it", price
    doubt = (
        "" if reason.chance > _SURE else f"; {reason.chance:.0%} likely to run and meet its bounds"
    )
    return f"{place}: {gain}{doubt}"


def lines_of_calibration(found: Explanation) -> Iterator[str]:
    """Yield how far the beliefs could be trusted."""
    if not found.predicted:
        return
    share = found.covered / found.predicted
    text = (
        f"{found.covered} of {found.predicted} values ({share:.0%}) lay within the 95 % interval "
        "that was believed before they were measured"
    )
    if found.predicted < _FEWEST:
        text += "; too few to judge by"
    elif share < _GOAL - 0.1:
        text += "; the beliefs were too sure of themselves"
    yield text


def table_of_untried(untried: tuple[Reason, ...]) -> "Table":
    """Lay out what is believed of the most promising deployments that were never tried."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("never tried")
    for belief in untried[0].expected if untried else ():
        table.add_column(Text(METRICS[belief.metric].label), justify="right", overflow="fold")
    table.add_column("gain", justify="right")
    table.add_column("price", justify="right")
    table.add_column("feasible", justify="right")
    for reason in untried:
        beliefs = map(_of_belief, reason.expected)
        price = f"{reason.shared_s + reason.own_s:.2g} s"
        cells = [*beliefs, f"{reason.gain:.2%}", price, f"{reason.chance:.0%}"]
        table.add_row(*map(Text, (short(reason.deployment), *cells)))
    return table


def table_of_importances(found: Explanation) -> "Table":
    """Lay out how much of each objective each axis explains alone."""
    from rich.table import Table
    from rich.text import Text

    metrics = list(dict.fromkeys(one.metric for one in found.importances))
    shares = {(one.axis, one.metric): one.share for one in found.importances}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("explains alone")
    for metric in metrics:
        table.add_column(Text(METRICS[metric].label), justify="right", overflow="fold")
    for axis in dict.fromkeys(one.axis for one in found.importances):
        cells = [
            f"{shares[axis, metric]:.0%}" if (axis, metric) in shares else "" for metric in metrics
        ]
        table.add_row(*map(Text, (axis, *cells)))
    return table


def data_of_explanation(found: Explanation) -> dict[str, object]:
    """Return an explanation as JSON data."""
    return {
        "trials": [_data(reason) for reason in found.reasons],
        "untried": [_data(reason) for reason in found.untried],
        "importances": [asdict(one) for one in found.importances],
        "predicted": found.predicted,
        "covered": found.covered,
    }


def _data(reason: Reason) -> dict[str, object]:
    return {
        "trial": reason.number,
        "deployment": dict(reason.deployment.axes()),
        "why": why(reason),
        "rank": reason.rank,
        "expected_gain": reason.gain,
        "expected_shared_s": reason.shared_s,
        "expected_own_s": reason.own_s,
        "chance": reason.chance,
        "expected": {one.metric: [one.value, one.low, one.high] for one in reason.expected},
        "measured": dict(reason.measured),
    }


def _expected(reason: Reason) -> Iterator[str]:
    return (f"{one.metric} {_of_belief(one)}" for one in reason.expected)


def _of_belief(belief: Belief) -> str:
    if belief.is_known:
        return number(belief.value)
    return f"{number(belief.value)} [{number(belief.low)}, {number(belief.high)}]"
