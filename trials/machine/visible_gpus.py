"""Which card CUDA calls by which number, from CUDA_VISIBLE_DEVICES. Pure.

References:
    CUDA C++ programming guide, CUDA environment variables: entries are numbers, beginnings of
        UUIDs, or names of MIG parts; the first that means nothing ends the list. Numbers count
        the cards from the fastest on unless CUDA_DEVICE_ORDER=PCI_BUS_ID.
"""

from collections.abc import Iterator, Mapping, Sequence

from trials.errors import UnsupportedError

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ORDER = "CUDA_DEVICE_ORDER"
_BY_BUS = "PCI_BUS_ID"


def uuid_of_ordinal(
    ordinal: int, cards: Sequence[tuple[str, str]], environment: Mapping[str, str]
) -> str:
    """Say which card CUDA calls ``ordinal``.

    Args:
        ordinal: From 0.
        cards: (UUID, name) of every card in the order of the bus.
        environment: Variables of the process, as they were when CUDA began.

    Raises:
        UnsupportedError: There is none, or it cannot be told.
    """
    visible = environment.get(_VISIBLE)
    found = list(range(len(cards))) if visible is None else list(_entries(visible, cards))
    if ordinal >= len(found):
        shown = "" if visible is None else f" with {_VISIBLE}={visible}"
        raise UnsupportedError(
            f"CUDA sees {len(found)} GPUs{shown}, and {ordinal} is none of them"
        )
    entry = found[ordinal]
    if isinstance(entry, str):
        return entry
    if len({name for _, name in cards}) > 1 and environment.get(_ORDER) != _BY_BUS:
        raise UnsupportedError(
            f"which of {len(cards)} different GPUs CUDA calls {ordinal} depends on their speed; "
            f"set {_ORDER}={_BY_BUS}, or name it by its UUID in {_VISIBLE}"
        )
    return cards[entry][0]


def _entries(visible: str, cards: Sequence[tuple[str, str]]) -> Iterator[int | str]:
    """Yield numbers as numbers and UUIDs whole, up to the first entry that means nothing."""
    for entry in visible.split(","):
        text = entry.strip()
        if text.startswith("MIG-"):
            yield text
            continue
        if text.isdecimal() and int(text) < len(cards):
            yield int(text)
            continue
        named = [uuid for uuid, _ in cards if text.startswith("GPU-") and uuid.startswith(text)]
        if len(named) != 1:
            return
        yield named[0]
