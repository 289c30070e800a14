import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from optimizer.front.histogram import figure_of_latencies, png_of_latencies
from trials.measurement import Block


def blocks_of(latencies_s: NDArray[np.float64], *, count: int = 10) -> list[Block]:
    pieces = np.array_split(latencies_s, count)
    return [
        Block(start_s=float(number), window_s=1.0, latencies_s=piece, batch_size=1)
        for number, piece in enumerate(pieces)
    ]


def lognormal(requests: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).lognormal(-7.0, 0.3, requests)


def test_picture_is_a_png_of_a_size_that_fits_a_page() -> None:
    picture = png_of_latencies(blocks_of(lognormal(5_000)), "trial 7")

    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        assert image.size == (960, 540)


def test_every_request_is_in_a_bar_and_the_axis_is_logarithmic() -> None:
    latencies_s = np.concatenate([lognormal(5_000), [1.5, 1e-5]])

    (axes,) = figure_of_latencies(blocks_of(latencies_s), "trial 7").axes

    low, high = axes.get_xlim()
    (bars,) = (patch for patch in axes.patches if hasattr(patch, "get_data"))
    assert bars.get_data().values.sum() == len(latencies_s)
    assert low < 1e-2
    assert high > 1500
    assert axes.get_xscale() == "log"


def test_percentiles_are_marked_with_their_intervals() -> None:
    (axes,) = figure_of_latencies(blocks_of(lognormal(20_000), count=20), "trial 7").axes

    legend = axes.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert [label.split()[0] for label in labels] == ["p50", "p90", "p99"]
    assert all("[" in label and "no upper limit" not in label for label in labels)


def test_percentile_without_an_upper_limit_says_so() -> None:
    (axes,) = figure_of_latencies(blocks_of(lognormal(60), count=3), "trial 7").axes

    legend = axes.get_legend()
    assert legend is not None
    assert "no upper limit" in legend.get_texts()[-1].get_text()


@pytest.mark.parametrize(
    "latencies_s", [np.full(30, 2e-3), np.array([0.0, 1e-3, 2e-3]), np.array([1e-3])]
)
def test_odd_latencies_are_drawn_all_the_same(latencies_s: NDArray[np.float64]) -> None:
    picture = png_of_latencies(blocks_of(latencies_s, count=1), "odd")

    assert picture.startswith(b"\x89PNG")


def test_no_blocks_are_no_picture() -> None:
    with pytest.raises(ValueError, match="block"):
        png_of_latencies([], "nothing")
