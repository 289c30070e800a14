"""Which card CUDA calls by which number."""

import pytest

from trials.errors import UnsupportedError
from trials.machine.visible_gpus import uuid_of_ordinal

CARDS = [("GPU-aaaa-1", "NVIDIA L4"), ("GPU-aabb-2", "NVIDIA L4"), ("GPU-bbbb-3", "NVIDIA L4")]
MIXED = [("GPU-aaaa-1", "Tesla T4"), ("GPU-bbbb-2", "NVIDIA H100")]


@pytest.mark.parametrize(
    ("visible", "ordinal", "uuid"),
    [
        (None, 1, "GPU-aabb-2"),
        ("2,0", 0, "GPU-bbbb-3"),
        ("2, 0", 1, "GPU-aaaa-1"),
        ("GPU-bbbb-3", 0, "GPU-bbbb-3"),
        ("GPU-bb", 0, "GPU-bbbb-3"),
        ("GPU-aaaa,GPU-bb", 1, "GPU-bbbb-3"),
        ("MIG-5c89852c", 0, "MIG-5c89852c"),
    ],
)
def test_numbers_are_those_of_the_visible_list(
    visible: str | None, ordinal: int, uuid: str
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    assert uuid_of_ordinal(ordinal, CARDS, environment) == uuid


@pytest.mark.parametrize(
    ("visible", "seen"),
    [("", 0), ("-1", 0), ("NoDevFiles", 0), ("0,7,1", 1), ("GPU-aa", 0), ("0,-1,1", 1)],
)
def test_first_entry_that_means_nothing_ends_the_list(visible: str, seen: int) -> None:
    with pytest.raises(UnsupportedError, match=f"CUDA sees {seen} GPUs with CUDA_VISIBLE"):
        uuid_of_ordinal(seen, CARDS, {"CUDA_VISIBLE_DEVICES": visible})


def test_numbers_of_unlike_cards_are_not_guessed() -> None:
    """CUDA counts the fastest first, and the bus is another order."""
    with pytest.raises(UnsupportedError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        uuid_of_ordinal(0, MIXED, {})

    by_bus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}
    assert uuid_of_ordinal(0, MIXED, by_bus) == "GPU-bbbb-2"
    assert uuid_of_ordinal(0, MIXED, {"CUDA_VISIBLE_DEVICES": "GPU-b"}) == "GPU-bbbb-2"
