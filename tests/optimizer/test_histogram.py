"""Pictures of latencies: the numbers of the trial stand in them, and odd samples can be drawn."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from optimizer.front.histogram import figure_of_latencies, png_of_latencies
from optimizer.front.words import text_of
from trials.measurement import Block, Seconds
from trials.measuring.statistics import quantile


def blocks_of(latencies_s: Seconds, count: int = 20) -> tuple[Block, ...]:
    return tuple(
        Block(start_s=float(number), window_s=0.1, latencies_s=piece, batch_size=1)
        for number, piece in enumerate(np.array_split(latencies_s, count))
    )


def a_tail(requests: int = 6_000) -> Seconds:
    """One request in a hundred takes six times as long."""
    rng = np.random.default_rng(0)
    latencies_s = 1e-3 * rng.lognormal(0.0, 0.1, requests)
    latencies_s[::100] *= 6
    return np.asarray(latencies_s)


def legend(blocks: Sequence[Block]) -> list[str]:
    shown = figure_of_latencies(blocks, "title").axes[0].get_legend()
    assert shown is not None
    return [shown.get_title().get_text(), *(text.get_text() for text in shown.get_texts())]


def test_picture_is_a_png_that_fits_a_page() -> None:
    content = png_of_latencies(blocks_of(a_tail()), "trial 3")

    with Image.open(BytesIO(content)) as image:
        assert image.format == "PNG"
        assert image.size == (960, 540)


def test_percentiles_are_those_of_the_statistics_with_their_intervals() -> None:
    blocks = blocks_of(a_tail())

    counted, *marks = legend(blocks)

    assert counted == "6,000 requests in 20 blocks; 95 % intervals shaded"
    assert marks == [
        f"{name}  {text_of(quantile(blocks, level).scaled(1e3))} ms"
        for name, level in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    ]


def test_every_request_is_in_a_bar_on_logarithmic_axes() -> None:
    latencies_s = a_tail()

    axes = figure_of_latencies(blocks_of(latencies_s), "title").axes[0]

    bars = axes.containers[0]
    assert sum(bar.get_height() for bar in bars) == latencies_s.size
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_upper_limit_that_is_not_known_runs_to_the_edge() -> None:
    axes = figure_of_latencies(blocks_of(a_tail(60), 3), "title").axes[0]

    shades = axes.patches[-3:]  # drawn after the bars
    right = max(shade.get_extents().transformed(axes.transData.inverted()).x1 for shade in shades)
    assert right == pytest.approx(axes.get_xlim()[1])
    assert any("∞" in text for text in legend(blocks_of(a_tail(60), 3)))


@pytest.mark.parametrize(
    "latencies_s",
    [np.full(300, 2e-3), np.array([1e-6, 1e-6, 10.0]), np.array([0.0, 1e-3, 2e-3]), np.zeros(9)],
)
def test_latencies_that_are_alike_far_apart_or_nothing_at_all_can_be_drawn(
    latencies_s: Seconds,
) -> None:
    content = png_of_latencies(blocks_of(latencies_s, 3), "odd")

    assert content.startswith(b"\x89PNG")


def test_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match="0 blocks"):
        png_of_latencies((), "nothing")
