"""Which arrays an engine's input or output is."""

import numpy as np
import pytest

from trials.backend import TensorSpec

IMAGES = TensorSpec(name="images", dtype="float32", shape=(None, 3, 8))


@pytest.mark.parametrize(
    ("shape", "dtype", "is_taken"),
    [
        ((4, 3, 8), "float32", True),
        ((1, 3, 8), "float32", True),
        ((4, 3, 8), "float64", False),
        ((4, 3, 9), "float32", False),
        ((4, 3), "float32", False),
        ((4, 3, 8, 1), "float32", False),
    ],
)
def test_tensor_takes_arrays_of_its_type_and_shape_with_any_size_where_that_is_free(
    shape: tuple[int, ...], dtype: str, *, is_taken: bool
) -> None:
    assert IMAGES.takes(np.zeros(shape, dtype)) is is_taken
