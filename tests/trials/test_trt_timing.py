"""Timings that are kept between builds; the calls are those of the library, checked by name."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from trt_flavours import recorded_names

from trials.backends.trt_timing import cache_file, timings

GOOD = b"timings:"


@dataclass
class Cache:
    """As an ``ITimingCache``: kernels that were timed."""

    known: set[str]

    def combine(self, other: "Cache", *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.known |= other.known
        return True

    def serialize(self) -> bytes:
        return GOOD + " ".join(sorted(self.known)).encode()


@dataclass
class Config:
    """As an ``IBuilderConfig``, which refuses timings of another GPU."""

    adds: str
    refuses: str = ""
    taken: set[str] = field(default_factory=set)
    cache: Cache | None = None

    def create_timing_cache(self, content: bytes) -> Cache | None:
        if content and not content.startswith(GOOD):
            return None
        return Cache(set(content.removeprefix(GOOD).decode().split()))

    def set_timing_cache(self, cache: Cache, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if self.refuses in cache.known:
            return False
        self.cache, self.taken = cache, set(cache.known)
        return True

    def get_timing_cache(self) -> Cache | None:
        return self.cache

    def build(self) -> None:
        assert self.cache is not None
        self.cache.known.add(self.adds)


def built(path: Path, adds: str, *, refuses: str = "") -> tuple[Config, list[str]]:
    config, said = Config(adds=adds, refuses=refuses), list[str]()
    with timings(config, path, said):
        config.build()
    return config, said


def kept(path: Path) -> set[str]:
    return set(path.read_bytes().removeprefix(GOOD).decode().split())


def test_calls_of_the_fake_are_those_of_the_library() -> None:
    for names in recorded_names().values():
        assert {"combine", "serialize"} <= names["ITimingCache"]
        mine = {"create_timing_cache", "set_timing_cache", "get_timing_cache"}
        assert mine <= names["IBuilderConfig"]


def test_second_build_begins_with_what_the_first_has_timed(tmp_path: Path) -> None:
    path = tmp_path / "shelf" / "gpu.timings"

    first, _ = built(path, "conv")
    second, said = built(path, "gemm")

    assert first.taken == set()
    assert second.taken == {"conv"}
    assert kept(path) == {"conv", "gemm"}
    assert said == []
    assert [each.name for each in path.parent.iterdir()] == ["gpu.timings"]


def test_builds_at_the_same_time_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "gpu.timings"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: built(path, f"kernel{at}"), range(40)))

    assert kept(path) == {f"kernel{at}" for at in range(40)}


def test_damaged_file_costs_time_and_no_engine(tmp_path: Path) -> None:
    path = tmp_path / "gpu.timings"
    path.write_bytes(b"\x00noise")

    config, said = built(path, "conv")

    assert config.taken == set()
    assert "holds no timings" in said[0]
    assert kept(path) == {"conv"}


def test_timings_of_another_gpu_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "gpu.timings"
    built(path, "foreign")

    config, said = built(path, "conv", refuses="foreign")

    assert config.taken == set()
    assert "another GPU or version" in said[0]


def test_folder_that_cannot_be_written_is_said_and_costs_no_engine(tmp_path: Path) -> None:
    (tmp_path / "shelf").write_text("a file is in the way")

    _, said = built(tmp_path / "shelf" / "gpu.timings", "conv")

    assert any("could not be kept" in line for line in said)


def test_build_that_raises_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), timings(Config(adds=""), tmp_path / "gpu.timings", []):
        raise KeyError("broken off")

    assert list(tmp_path.iterdir()) == []


def test_each_library_and_gpu_has_a_file_of_its_own(tmp_path: Path) -> None:
    one = cache_file(tmp_path, (("gpu", "NVIDIA L4"), ("tensorrt", "11.1")))
    other = cache_file(tmp_path, (("gpu", "NVIDIA L4"), ("tensorrt", "10.16")))

    assert one != other
    assert one.parent == tmp_path
