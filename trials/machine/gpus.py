"""Which NVIDIA GPUs this machine has, as facts of a record."""

from collections.abc import Iterator

from trials.errors import UnsupportedError
from trials.machine.nvml import Load, cards, load_pynvml

_NONE = "none"


def gpu_facts(load: Load = load_pynvml) -> Iterator[tuple[str, str]]:
    """Yield ``gpu`` (models in the order of the bus), ``gpu_driver`` and whether parts are cut.

    All are ``none`` where nothing answers; ``gpu_mig`` is told of cards that can be cut alone.
    """
    try:
        found = cards(load)
    except UnsupportedError:
        yield from (("gpu", _NONE), ("gpu_driver", _NONE))
        return
    yield "gpu", ", ".join(card.name for card in found)
    yield "gpu_driver", found[0].driver
    if any(card.is_mig is not None for card in found):
        yield "gpu_mig", ", ".join("on" if card.is_mig else "off" for card in found)


def driver_version() -> str:
    """Return the version of NVIDIA's driver; ``unknown`` where nobody tells."""
    found = dict(gpu_facts())["gpu_driver"]
    return "unknown" if found == _NONE else found
