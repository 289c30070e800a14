"""Two machines: whether their speeds may be compared, and what else is not as it was."""

from collections.abc import Iterator, Mapping

# what changes a speed by more than any margin; all of it is recorded with every trial
_HARDWARE = (
    "cpu_model",
    "cpu_flags",
    "cpu_logical",
    "cpu_physical",
    "cpu_affinity",
    "machine",
    "gpu",
    "gpu_driver",
)
# what differs from one minute or container to the next and explains nothing
_PASSING = ("load_1m", "psi_cpu_some_avg10", "container", "cpu", "memory_mb")


def other_hardware(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Say what of the hardware differs; empty where speeds may be compared.

    Args:
        then: Facts by name, as they were recorded.
        now: Facts of this machine.
    """
    return tuple(_differences(then, now, only=_HARDWARE))


def other_surroundings(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Say what else differs: versions, settings, the host."""
    names = sorted((then.keys() | now.keys()) - {*_HARDWARE, *_PASSING})
    return tuple(_differences(then, now, only=names))


def _differences(
    then: Mapping[str, str], now: Mapping[str, str], *, only: "tuple[str, ...] | list[str]"
) -> Iterator[str]:
    for name in only:
        before, after = then.get(name, "absent"), now.get(name, "absent")
        if before != after:
            yield f"{name} was {before}, is {after}"
