"""A saturation in words and rows, for the terminal, ``trifront show`` and reports."""

from collections.abc import Iterator

from optimizer.front.words import number, text_of
from optimizer.saturation.result import OpenPoint, Saturation, Standing
from trials.measurement import Estimate
from trials.measuring.load import CONTENDED

CLOSED_COLUMNS = ("in flight", "throughput [samples/s]", "p50 [ms]", "p99 [ms]", "flags")
_MS_PER_S = 1e3


def lines_of(found: Saturation) -> Iterator[str]:
    """Say what was found: the knee, the law, and the rate that keeps the promise."""
    yield from _limit(found)
    flags = (*(point.flags for point in found.closed), *(point.flags for point in found.open))
    if any(CONTENDED in each for each in flags):
        yield "other work took the processor meanwhile: a quiet machine may keep more"
    law = found.scalability
    if law is None:
        yield "too few concurrencies fit into the time to say where the knee is"
        return
    if law.knee_concurrency is None or law.peak_sps is None:
        yield "no knee: throughput grew in proportion to the concurrency, as far as was measured"
    else:
        yield (
            f"knee at {text_of(law.knee_concurrency)} requests in flight, at most "
            f"{text_of(law.peak_sps)} samples/s"
        )
    yield (
        f"one worker alone {text_of(law.alone_sps)} samples/s, contention σ "
        f"{text_of(law.contention)}, coherency κ {text_of(law.coherency)}"
    )


def _limit(found: Saturation) -> Iterator[str]:
    promise = " and ".join(map(str, found.slo))
    if found.kept_rps is None:
        yield f"{promise} is kept at no rate that was tried"
    else:
        kept = number(found.kept_rps)
        yield f"{promise} is kept up to {kept} requests/s, with the whole interval"
    if found.lost_rps is None:
        yield "no higher rate was tried; with a longer --time one may be"
        return
    point = next(one for one in found.open if one.rate_rps == found.lost_rps)
    lost = number(found.lost_rps)
    if point.standing is Standing.NO_NUMBER:
        yield f"at {lost} requests/s nothing could be measured: {point.reason}"
    else:
        yield f"at {lost} requests/s it is no longer kept for certain ({point.standing})"


def closed_rows(found: Saturation) -> Iterator[tuple[str, ...]]:
    """Yield a row a concurrency, under ``CLOSED_COLUMNS``."""
    for point in found.closed:
        yield (
            f"{point.concurrency}",
            text_of(point.speed.throughput_sps),
            _ms(point.speed.latency_p50_s),
            _ms(point.speed.latency_p99_s),
            ", ".join(point.flags),
        )


def open_columns(found: Saturation) -> tuple[str, ...]:
    """Return the columns of :func:`open_rows`."""
    promised = (f"{one.metric.label}" for one in found.slo)
    return ("requests/s", "promise", *promised, "waiting [ms]", "batch", "flags")


def open_rows(found: Saturation) -> Iterator[tuple[str, ...]]:
    """Yield a row a rate, under :func:`open_columns`."""
    for point in found.open:
        latencies = (_latency(point, one.metric.name) for one in found.slo)
        waited = batch = ""
        if point.queueing is not None:
            waited = number(point.queueing.wait_mean_s * _MS_PER_S)
            batch = number(point.queueing.batch_mean)
        flags = ", ".join(point.flags)
        yield (number(point.rate_rps), point.standing.value, *latencies, waited, batch, flags)


def _latency(point: OpenPoint, metric: str) -> str:
    found = point.latency_ms(metric)
    return "" if found is None else text_of(found)


def _ms(estimate: Estimate) -> str:
    return text_of(estimate.scaled(_MS_PER_S))
