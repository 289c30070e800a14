"""What data files may hold, how they are cut and how they meet an engine's inputs."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search_spaces.space import (
    InputTypes,
    Preprocessing,
    SplitFiles,
    SplitOfOne,
    Task,
    TaskKind,
)
from trials.backend import TensorSpec
from trials.data.dataset import (
    Dataset,
    Split,
    dataset_from_task,
    request_batches,
    synthetic_dataset,
)
from trials.data.feeding import feeds
from trials.errors import DataError

SOURCE = "space.yaml"
PLAIN = Preprocessing()
COUNT = 40

tmp_path_is_shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def images(count: int = COUNT, *, first: int = 0) -> NDArray[np.uint8]:
    """Make distinct samples of shape (count, 2, 3, 3), numbered from ``first``."""
    numbers = np.arange(first, first + count, dtype=np.uint8)
    return np.broadcast_to(numbers[:, None, None, None], (count, 2, 3, 3)).copy()


def classes(count: int = COUNT) -> NDArray[np.int64]:
    return np.arange(count) % 4


def save(path: Path, **arrays: Any) -> Path:
    held: dict[str, Any] = {"inputs": images(), "labels": classes()} | arrays
    np.savez(path, **held)
    return path


def one(
    path: Path,
    *,
    kind: TaskKind = TaskKind.CLASSIFICATION,
    preprocessing: Preprocessing = PLAIN,
    shares: tuple[float, float, float] = (0.2, 0.4, 0.4),
    seed: int = 0,
) -> Dataset:
    """Read a data set that is cut out of one file."""
    calibration, search, report = shares
    cut = SplitOfOne(path=path, calibration=calibration, search=search, report=report, seed=seed)
    task = Task(kind=kind, metric=None, data=cut, preprocessing=preprocessing)
    return dataset_from_task(task, source=SOURCE)


def three(calibration: Path | None, search: Path, report: Path) -> Dataset:
    """Read a data set of three files."""
    files = SplitFiles(calibration=calibration, search=search, report=report)
    kind = TaskKind.CLASSIFICATION
    task = Task(kind=kind, metric=None, data=files, preprocessing=PLAIN)
    return dataset_from_task(task, source=SOURCE)


def splits_of(dataset: Dataset) -> list[Split]:
    assert dataset.calibration is not None
    return [dataset.calibration, dataset.search, dataset.report]


def numbers_of(split: Split) -> set[int]:
    """Tell which of ``images`` a split holds."""
    return set(split.arrays[0][1][:, 0, 0, 0].tolist())


def test_cut_file_gives_each_split_its_share(tmp_path: Path) -> None:
    dataset = one(save(tmp_path / "data.npz"))

    assert [len(split) for split in splits_of(dataset)] == [8, 16, 16]


def test_cut_splits_share_no_sample_and_lose_none(tmp_path: Path) -> None:
    calibration, search, report = map(numbers_of, splits_of(one(save(tmp_path / "data.npz"))))

    assert calibration | search | report == set(range(COUNT))
    assert not calibration & search
    assert not (calibration | search) & report


def test_remainder_of_the_shares_stays_unused(tmp_path: Path) -> None:
    dataset = one(save(tmp_path / "data.npz"), shares=(0.1, 0.2, 0.3))

    assert [len(split) for split in splits_of(dataset)] == [4, 8, 12]


@tmp_path_is_shared
@given(copies=st.lists(st.integers(1, 3), min_size=COUNT, max_size=COUNT), seed=st.integers(0, 99))
def test_identical_samples_never_fall_into_two_splits(
    tmp_path: Path, copies: list[int], seed: int
) -> None:
    numbers = np.random.default_rng(seed).permutation(np.repeat(np.arange(COUNT), copies))
    path = save(tmp_path / "data.npz", inputs=images()[numbers], labels=classes(numbers.size))

    held = [numbers_of(split) for split in splits_of(one(path, shares=(0.3, 0.3, 0.3), seed=seed))]

    assert sum(map(len, held)) == len(set.union(*held))


def test_cut_is_stratified_by_label(tmp_path: Path) -> None:
    numbers = np.arange(4_000, dtype=np.float32)[:, None]
    labels = (np.arange(4_000) % 40 == 0).astype(np.int64)
    path = save(tmp_path / "data.npz", inputs=numbers, labels=labels)

    rare = [split.labels.sum() for split in splits_of(one(path))]

    np.testing.assert_allclose(rare, [20, 40, 40], atol=3)


def test_cut_follows_its_seed(tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz")

    first, again, other = (one(path, seed=seed) for seed in (1, 1, 2))

    assert first.search.digest == again.search.digest != other.search.digest


def test_share_that_gets_no_sample_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz")

    with pytest.raises(DataError, match=r"task\.data\.split\.calibration: 0\.001 of the 40"):
        one(path, shares=(0.001, 0.4, 0.4))


def test_three_files_are_read_as_they_are(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{first}.npz", inputs=images(first=first)) for first in (0, 50, 100)]

    dataset = three(paths[0], paths[1], paths[2])

    assert [split.name for split in splits_of(dataset)] == ["calibration", "search", "report"]
    np.testing.assert_array_equal(dataset.search.arrays[0][1], images(first=50))
    np.testing.assert_array_equal(dataset.search.labels, classes())


def test_calibration_may_be_absent(tmp_path: Path) -> None:
    search = save(tmp_path / "search.npz")
    report = save(tmp_path / "report.npz", inputs=images(first=50))

    assert three(None, search, report).calibration is None


def test_overlapping_files_are_refused_with_count_and_place(tmp_path: Path) -> None:
    search = save(tmp_path / "search.npz")
    report = save(tmp_path / "report.npz", inputs=images(first=30))

    with pytest.raises(DataError, match=r"shares 10 samples.*search\[30\] = report\[0\]"):
        three(None, search, report)


def test_duplicates_within_a_split_are_allowed(tmp_path: Path) -> None:
    search = save(tmp_path / "search.npz", inputs=images()[np.zeros(COUNT, dtype=int)])
    report = save(tmp_path / "report.npz", inputs=images(first=50))

    assert len(three(None, search, report).search) == COUNT


def test_splits_of_different_types_are_refused(tmp_path: Path) -> None:
    search = save(tmp_path / "search.npz")
    report = save(tmp_path / "report.npz", inputs=images().astype(np.float32))

    with pytest.raises(DataError, match=r"float32 \(n, 2, 3, 3\).*uint8.*store all splits alike"):
        three(None, search, report)


@pytest.mark.parametrize(
    ("change", "alters"),
    [({}, False), ({"labels": classes()[::-1]}, True), ({"cohorts": classes()}, True)],
)
def test_digest_covers_labels_and_cohorts(
    tmp_path: Path, change: dict[str, Any], *, alters: bool
) -> None:
    base = three(
        None,
        save(tmp_path / "search.npz"),
        save(tmp_path / "report.npz", inputs=images(first=50)),
    )

    changed = three(
        None,
        save(tmp_path / "changed.npz", **change),
        save(tmp_path / "report.npz", inputs=images(first=50)),
    )

    assert (changed.search.digest != base.search.digest) is alters
    assert changed.report.digest == base.report.digest


def test_digest_does_not_depend_on_how_integers_are_stored(tmp_path: Path) -> None:
    wide = one(save(tmp_path / "wide.npz"))
    narrow = one(save(tmp_path / "narrow.npz", labels=classes().astype(">u2")))

    assert wide.report.digest == narrow.report.digest


def test_integer_cohorts_become_text(tmp_path: Path) -> None:
    dataset = one(save(tmp_path / "data.npz", cohorts=classes() + 2020))

    assert dataset.search.cohorts is not None
    assert set(dataset.search.cohorts) == {"2020", "2021", "2022", "2023"}


def test_several_inputs_keep_their_names(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "inputs.left": images(),
        "inputs.right": images()[::-1],
        "labels": classes(),
    }
    np.savez(tmp_path / "data.npz", **arrays)

    dataset = one(tmp_path / "data.npz")

    assert [name for name, _ in dataset.search.arrays] == ["left", "right"]


def test_custom_task_takes_labels_of_any_kind(tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz", labels=np.full((COUNT, 2, 5), 0.5))

    dataset = one(path, kind=TaskKind.CUSTOM)

    assert dataset.search.labels.shape == (16, 2, 5)


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "short labels": ({"labels": classes(3)}, r"'labels' has length 3, the inputs have 40"),
    "short cohorts": ({"cohorts": classes(3)}, r"'cohorts' has length 3"),
    "no samples": ({"inputs": images(0), "labels": classes(0)}, r"'inputs' holds no samples"),
    "single value": ({"labels": 3}, r"'labels' is a single value"),
    "text inputs": ({"inputs": np.full(COUNT, "a")}, r"'inputs' is str.*store numbers"),
    "empty samples": ({"inputs": np.ones((COUNT, 0))}, r"empty samples, shape \(40, 0\)"),
    "float labels": ({"labels": np.ones(COUNT)}, r"'labels' is float64.*integers"),
    "one-hot labels": ({"labels": np.ones((COUNT, 4), int)}, r"labels\.argmax\(1\)"),
    "negative labels": ({"labels": classes() - 1}, r"labels\[0\] is -1"),
    "enormous labels": ({"labels": np.full(COUNT, 2**64 - 1)}, r"is 18446744073709551615"),
    "float cohorts": ({"cohorts": np.ones(COUNT)}, r"'cohorts' is float64"),
    "misspelt cohorts": ({"cohort": classes()}, r"'cohort' is unknown; did you mean 'cohorts'"),
    "both forms": ({"inputs.a": images()}, r"both 'inputs' and 'inputs\.a'"),
    "pickled labels": (
        {"labels": np.array([{}] * COUNT, dtype=object)},
        r"'labels' holds Python objects.*never loaded",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_array_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = save(tmp_path / "data.npz", **change)

    with pytest.raises(DataError, match=message) as caught:
        one(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_input_that_is_not_finite_is_refused_with_its_place(tmp_path: Path, bad: float) -> None:
    inputs = images().astype(np.float32)
    inputs[[7, 9], 1, 2, 0] = bad

    with pytest.raises(DataError, match=r"in 2 samples, the first is inputs\[7\]"):
        one(save(tmp_path / "data.npz", inputs=inputs))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input": images(), "labels": classes()}, r"no array 'inputs'; rename 'input'"),
        ({"inputs": images(), "label": classes()}, r"no array 'labels'; rename 'label'"),
        ({"x": images(), "y": classes()}, r"no array 'inputs'; it holds x, y"),
        ({}, r"no array 'inputs'; it holds nothing"),
    ],
)
def test_missing_array_is_named_with_what_is_there(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)

    with pytest.raises(DataError, match=message):
        one(tmp_path / "data.npz")


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.trace,)


def test_pickle_in_an_npz_is_never_loaded(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = save(tmp_path / "data.npz", labels=np.array([Bomb(trace)] * COUNT, dtype=object))

    with pytest.raises(DataError, match="never loaded"):
        one(path)

    assert not trace.exists()


def test_bare_pickle_is_never_loaded(tmp_path: Path) -> None:
    path, trace = tmp_path / "data.npz", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Bomb(trace)))

    with pytest.raises(DataError, match="is no npz file"):
        one(path)

    assert not trace.exists()


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz: does not exist"):
        one(tmp_path / "gone.npz")


def test_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"without class folders; name an npz file"):
        one(tmp_path, preprocessing=Preprocessing(size=(8, 8)))


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz")
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(DataError, match="its end is cut off"):
        one(path)


def test_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inputs", b"no array")
        archive.writestr("labels", b"none either")

    with pytest.raises(DataError, match="'inputs' is no array"):
        one(path)


@tmp_path_is_shared
@given(data=st.data())
def test_damaged_file_is_refused_or_reads_the_same(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(save(tmp_path / "sound.npz").read_bytes())
    sound = one(tmp_path / "sound.npz").search.digest
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)

    try:
        digest = one(path).search.digest
    except DataError:
        return

    assert digest == sound


def test_preprocessing_is_scale_then_mean_then_std_per_channel(tmp_path: Path) -> None:
    how = Preprocessing(scale=0.5, mean=(1.0, 2.0), std=(2.0, 4.0))
    split = one(save(tmp_path / "data.npz"), preprocessing=how).search
    stored = split.arrays[0][1][[3, 1]].astype(np.float32)

    samples = split.samples([3, 1], how)[""]

    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples[:, 0], (stored[:, 0] * 0.5 - 1) / 2)
    np.testing.assert_allclose(samples[:, 1], (stored[:, 1] * 0.5 - 2) / 4)


@pytest.mark.parametrize(
    ("inputs", "how", "message"),
    [
        (images(), Preprocessing(mean=(1.0,)), r"mean has 1 values.*have 2 channels"),
        (images(), Preprocessing(std=(1.0, 1.0, 1.0)), r"std has 3 values"),
        (np.ones(COUNT), Preprocessing(std=(1.0,)), r"have 0 channels"),
        (images(), Preprocessing(dtype="int64", scale=0.5), r"int64 takes no scale"),
        (images() + 100, Preprocessing(dtype="int8"), r"holds 100 to 139.*-128 to 127"),
        (images() / 3, Preprocessing(dtype="int32"), r"float64.*int32 would cut"),
        (np.full(COUNT, 1e300), PLAIN, r"too large for preprocess\.dtype float32"),
    ],
)
def test_preprocessing_that_does_not_suit_the_samples_is_refused(
    tmp_path: Path, inputs: NDArray[Any], how: Preprocessing, message: str
) -> None:
    path = save(tmp_path / "data.npz", inputs=inputs)

    with pytest.raises(DataError, match=message):
        one(path, preprocessing=how)


IDS_AND_PIXELS = (("ids", "int64"), ("pixels", "float32"))


def pages() -> dict[str, NDArray[Any]]:
    """Two inputs, both stored in bytes."""
    ids = np.arange(COUNT * 3, dtype=np.uint8).reshape(COUNT, 3)
    return {"inputs.ids": ids, "inputs.pixels": images(), "labels": np.arange(COUNT) % 2}


def read_pages(folder: Path, how: Preprocessing, **arrays: NDArray[Any]) -> Split:
    np.savez(folder / "data.npz", allow_pickle=False, **(pages() | arrays))
    return one(folder / "data.npz", preprocessing=how).search


def test_each_input_has_its_type_and_only_floats_are_scaled(tmp_path: Path) -> None:
    how = Preprocessing(dtype=IDS_AND_PIXELS, scale=0.5, mean=(1.0, 2.0))
    split = read_pages(tmp_path, how)

    samples = split.samples([2], how)

    stored = dict(split.arrays)
    assert samples["ids"].dtype == np.int64
    np.testing.assert_array_equal(samples["ids"], stored["ids"][[2]])
    np.testing.assert_allclose(samples["pixels"][0, 1], stored["pixels"][2, 1] * 0.5 - 2)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ((("ids", "int64"),), r"has no type for inputs\.pixels; add one, such as pixels"),
        ((*IDS_AND_PIXELS, ("pixel", "int8")), r"no samples inputs\.pixel; did you mean 'pixels'"),
        ((("ids", "int8"), ("pixels", "float32")), r"inputs\.ids holds 0 to .*dtype int8 holds"),
        ((("ids", "int64"), ("pixels", "int64")), r"no input has a floating type, so scale"),
    ],
)
def test_types_that_do_not_suit_the_inputs_are_refused(
    tmp_path: Path, dtype: InputTypes, message: str
) -> None:
    wide = np.arange(COUNT * 3).reshape(COUNT, 3) * 10

    with pytest.raises(DataError, match=message):
        read_pages(tmp_path, Preprocessing(dtype=dtype, scale=0.5), **{"inputs.ids": wide})


def test_types_by_input_are_refused_where_the_data_have_no_names(tmp_path: Path) -> None:
    how = Preprocessing(dtype=(("images", "float32"),))

    with pytest.raises(DataError, match=r"one array without a name; write dtype: float32"):
        one(save(tmp_path / "data.npz"), preprocessing=how)


def test_integer_inputs_stay_integers(tmp_path: Path) -> None:
    how = Preprocessing(dtype="int64")

    samples = one(save(tmp_path / "data.npz"), preprocessing=how).search.samples([0], how)

    assert samples[""].dtype == np.int64


def test_drawn_samples_are_copies(tmp_path: Path) -> None:
    how = Preprocessing(dtype="uint8")
    split = one(save(tmp_path / "data.npz"), preprocessing=how).search

    split.samples([0], how)[""][:] = 255

    assert 255 not in numbers_of(split)


@example(count=5, batch_size=3, seed=0)
@given(count=st.integers(1, 12), batch_size=st.integers(1, 4_500), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_every_sample_is_requested_before_any_returns(
    count: int, batch_size: int, seed: int
) -> None:
    split = synthetic_dataset(0).search

    batches = request_batches(
        split, batch_size=batch_size, count=count, preprocessing=PLAIN, seed=seed
    )
    drawn = np.concatenate([batch["samples"][:, 0] for batch in batches])
    times = np.bincount(drawn.astype(int), minlength=len(split))

    assert [len(batch["samples"]) for batch in batches] == [batch_size] * count
    assert np.ptp(times) <= 1


def test_small_split_is_shuffled_anew_when_it_is_used_up(tmp_path: Path) -> None:
    split = one(save(tmp_path / "data.npz")).search

    first, second = request_batches(
        split, batch_size=len(split), count=2, preprocessing=PLAIN, seed=0
    )

    assert not np.array_equal(first[""], second[""])
    assert sorted(first[""].flat) == sorted(second[""].flat)


def test_requests_follow_their_seed() -> None:
    split = synthetic_dataset(0).search

    first, again, other = (
        request_batches(split, batch_size=8, count=1, preprocessing=PLAIN, seed=seed)[0]
        for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(first["samples"], again["samples"])
    assert not np.array_equal(first["samples"], other["samples"])


def test_synthetic_samples_are_ids_and_labels() -> None:
    dataset = synthetic_dataset(3)
    (name, search), (_, report) = (dataset.search.arrays[0], dataset.report.arrays[0])

    assert (name, search.dtype.name, search.shape) == ("samples", "float32", (2_000, 2))
    assert not set(search[:, 0]) & set(report[:, 0])
    np.testing.assert_array_equal(search[:, 1], dataset.search.labels)
    assert set(dataset.search.labels) == set(range(10))


def test_synthetic_labels_follow_the_seed() -> None:
    digests = {synthetic_dataset(seed).search.digest for seed in (0, 0, 1)}

    assert len(digests) == 2


PIXELS = TensorSpec(name="images", dtype="float32", shape=(None, 1, 28, 28))


def samples_of(*shape: int, dtype: str = "float32") -> dict[str, NDArray[Any]]:
    return {"": np.zeros(shape, dtype=dtype)}


def test_sole_unnamed_array_feeds_the_sole_input() -> None:
    samples = samples_of(4, 1, 28, 28)

    fed = feeds(samples, (PIXELS,), source=SOURCE)

    assert list(fed) == ["images"]
    assert fed["images"] is samples[""]


def test_named_arrays_come_in_the_order_of_the_inputs() -> None:
    first, second = (TensorSpec(name=name, dtype="int64", shape=(None,)) for name in "ba")
    samples = {"a": np.zeros(2, np.int64), "b": np.ones(2, np.int64)}

    fed = feeds(samples, (first, second), source=SOURCE)

    assert list(fed) == ["b", "a"]


def test_misfit_of_one_of_several_types_is_mended_by_naming_them_all() -> None:
    ids = TensorSpec(name="ids", dtype="int64", shape=(None,))
    mask = TensorSpec(name="mask", dtype="float32", shape=(None,))
    samples = {name: np.zeros(2, np.float32) for name in ("ids", "mask")}

    with pytest.raises(DataError, match=r"preprocess\.dtype: \{ids: int64, mask: float32\}"):
        feeds(samples, (ids, mask), source=SOURCE)


LAST = TensorSpec(name="images", dtype="float32", shape=(None, 28, 28, 1))
FLAT = TensorSpec(name="images", dtype="float32", shape=(None, 784))
FIXED = TensorSpec(name="images", dtype="float32", shape=(8, 1, 28, 28))


@pytest.mark.parametrize(
    ("samples", "spec", "mend"),
    [
        (samples_of(4, 28, 28), PIXELS, r"inputs\[:, None\]"),
        (samples_of(4, 28, 28), LAST, r"inputs\[\.\.\., None\]"),
        (samples_of(4, 28, 28, 1), PIXELS, r"transpose\(0, 3, 1, 2\)"),
        (samples_of(4, 1, 28, 28), LAST, r"transpose\(0, 2, 3, 1\)"),
        (samples_of(4, 1, 28, 28), FLAT, r"inputs\.reshape\(-1, 784\)"),
        (samples_of(4, 784), PIXELS, r"inputs\.reshape\(-1, 1, 28, 28\)"),
        (samples_of(4, 3, 32, 32), PIXELS, r"preprocess\.size"),
        (samples_of(4, 1, 28, 28), FIXED, r"batches of 8 only"),
        (samples_of(4, 1, 28, 28, dtype="uint8"), PIXELS, r"preprocess\.dtype: float32"),
    ],
)
def test_misfit_names_both_shapes_and_the_mend(
    samples: dict[str, NDArray[Any]], spec: TensorSpec, mend: str
) -> None:
    with pytest.raises(DataError, match=mend) as caught:
        feeds(samples, (spec,), source=SOURCE)

    shape = ", ".join("n" if size is None else str(size) for size in spec.shape)
    assert f"takes float32 ({shape})" in str(caught.value)
    assert str(samples[""].shape) in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([""], r"takes 2 inputs and the data hold one array; store inputs\.ids, inputs\.mask"),
        (["ids"], r"input 'mask' has no samples; store inputs\.mask"),
        (["ids", "masks"], r"inputs\.masks feeds no input.*did you mean 'mask'"),
    ],
)
def test_arrays_and_inputs_must_have_the_same_names(names: list[str], message: str) -> None:
    specs = tuple(TensorSpec(name=name, dtype="int64", shape=(None,)) for name in ("ids", "mask"))
    samples = {name: np.zeros(2, np.int64) for name in names}

    with pytest.raises(DataError, match=message):
        feeds(samples, specs, source=SOURCE)


def test_task_without_data_is_refused() -> None:
    task = Task(
        kind=TaskKind.CLASSIFICATION, metric=None, data=None, preprocessing=Preprocessing()
    )

    with pytest.raises(DataError, match=r"space\.yaml: task\.data is missing"):
        dataset_from_task(task, source=SOURCE)
