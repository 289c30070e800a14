"""The batch sizes that a lane holds bound, with their inputs. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from trials.backend import Tensors

_INPUTS_EACH = 4  # distinct inputs per size, as bytes allow
_BOUND_BYTES = 256_000_000  # of inputs that all lanes hold together
_MOST_SIZES = 64  # beyond it only powers of two are bound


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ladder:
    """Sizes in ascending order, the last one the largest batch.

    Attributes:
        sizes: Bound ones.
        inputs: The inputs of each size, in the order of sizes.
    """

    sizes: tuple[int, ...]
    inputs: tuple[tuple[Tensors, ...], ...]

    def batches(self) -> list[Tensors]:
        """Return all inputs, those of the smallest size first."""
        return [batch for each in self.inputs for batch in each]

    def places(self, size: int) -> range:
        """Return where the inputs of a bound size stand in :meth:`batches`."""
        at = self.sizes.index(size)
        first = sum(len(each) for each in self.inputs[:at])
        return range(first, first + len(self.inputs[at]))

    @property
    def filled(self) -> tuple[int, ...]:
        """The bound size that takes 0, 1, 2, … requests, up to the largest batch."""
        return tuple(
            next(size for size in self.sizes if size >= count)
            for count in range(self.sizes[-1] + 1)
        )


def ladder_over(
    batches: Sequence[Tensors],
    *,
    size: int,
    lanes: int,
    is_fixed: bool = False,
    is_costly: bool = False,
) -> Ladder:
    """Cut inputs of the largest size down to every size that is to be bound.

    Args:
        batches: Inputs of the largest batch, at least one.
        size: Samples in each of them.
        lanes: How many lanes bind them.
        is_fixed: The engine takes no other size.
        is_costly: The engine holds more for a size than its inputs and outputs: an execution
            context with memory of a device.
    """
    sample_bytes = sum(array.nbytes for array in batches[0].values()) / size * lanes
    bytes_of_all = sample_bytes * sum(range(1, size + 1))
    if is_fixed:
        sizes: tuple[int, ...] = (size,)
    elif is_costly or size > _MOST_SIZES or bytes_of_all > _BOUND_BYTES:
        sizes = powers_up_to(size)
    else:
        sizes = tuple(range(1, size + 1))
    affordable = int(_BOUND_BYTES / max(1.0, sum(sizes) * sample_bytes))
    each = max(1, min(_INPUTS_EACH, affordable, len(batches)))
    inputs = tuple(
        tuple({name: array[:count] for name, array in batch.items()} for batch in batches[:each])
        for count in sizes
    )
    return Ladder(sizes=sizes, inputs=inputs)


def powers_up_to(largest: int) -> tuple[int, ...]:
    """Return the powers of two below the largest batch, and that."""
    powers = [1 << at for at in range(largest.bit_length()) if 1 << at < largest]
    return (*powers, largest)
