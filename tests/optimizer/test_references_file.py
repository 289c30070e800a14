"""References as a file: the same arrays back, and nothing else is taken for them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from optimizer.errors import BundleError
from optimizer.export.references_file import read_references, write_references
from trials.data.npz import Array
from trials.references import References

names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8
)
dtypes = st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "int64", "bool"])


def tensors(count: int) -> st.SearchStrategy[dict[str, Array]]:
    """Draw arrays of ``count`` samples by name."""
    shapes = st.lists(st.integers(1, 3), max_size=2).map(lambda tail: (count, *tail))
    return st.dictionaries(
        names, dtypes.flatmap(lambda one: arrays_of.arrays(one, shapes)), min_size=1, max_size=2
    )


@given(data=st.data(), count=st.integers(1, 3))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_references_survive_being_written_and_read(
    tmp_path: Path, data: st.DataObject, count: int
) -> None:
    written = References(
        inputs=data.draw(tensors(count)),
        outputs=data.draw(tensors(count)),
        labels=np.arange(count),
        batch_size=2,
    )
    write_references(written, tmp_path / "r.npz")

    read = read_references(tmp_path / "r.npz", batch_size=2)

    for before, after in ((written.inputs, read.inputs), (written.outputs, read.outputs)):
        assert before.keys() == after.keys()
        for name, array in before.items():
            assert (array.dtype, array.shape) == (after[name].dtype, after[name].shape)
            assert array.tobytes() == after[name].tobytes()


@pytest.mark.parametrize(
    "arrays",
    [
        {"inputs.x": np.ones((2, 1)), "outputs.y": np.ones((2, 1))},
        {"labels": np.ones(2), "outputs.y": np.ones((2, 1))},
        {"labels": np.ones(2), "inputs.x": np.ones((2, 1))},
        {"labels": np.ones(2), "inputs.x": np.ones((3, 1)), "outputs.y": np.ones((2, 1))},
        {"labels": np.ones(0), "inputs.x": np.ones((0, 1)), "outputs.y": np.ones((0, 1))},
    ],
    ids=["no labels", "no inputs", "no outputs", "other lengths", "no samples"],
)
def test_other_arrays_are_no_references(tmp_path: Path, arrays: dict[str, Array]) -> None:
    np.savez(tmp_path / "r.npz", allow_pickle=False, **arrays)

    with pytest.raises(BundleError, match="which are no references"):
        read_references(tmp_path / "r.npz", batch_size=1)


def test_file_that_holds_pickles_is_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", labels=np.array([{}], dtype=object))

    with pytest.raises(BundleError, match="Python objects, which are pickled and never loaded"):
        read_references(tmp_path / "r.npz", batch_size=1)
