"""Axes as Optuna sees them, and back.

Numbers that double (1, 2, 4, 8 …) become integer exponents, because a sampler should see ratios
there; evenly spaced integers stay as they are; other numbers become their rank. Everything else is
a category. The parameter's name says which: ``log2(batch_size)``, ``threads``, ``rank(budget)``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from search_spaces.deployment import Deployment, Scalar, deployment_from_axes
from search_spaces.space import Axis, SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One axis as an Optuna parameter.

    Attributes:
        name: Optuna's name for it.
        axis: The axis.
        distribution: What Optuna samples from.
        codes: Code of each axis value, in the axis' order.
    """

    name: str
    axis: Axis
    distribution: BaseDistribution
    codes: tuple[Scalar, ...]

    @property
    def is_ordinal(self) -> bool:
        """Tell whether neighbouring values are alike."""
        return isinstance(self.distribution, IntDistribution)


class Encoding:
    """Translate between deployments and the parameters of one space."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.parameters = tuple(parameter_from_axis(axis) for axis in space.axes)
        self.distributions = {
            parameter.name: parameter.distribution for parameter in self.parameters
        }

    def params(self, deployment: Deployment) -> dict[str, Scalar]:
        """Return Optuna's parameters of a deployment."""
        values = dict(deployment.axes())
        return {
            parameter.name: parameter.codes[
                parameter.axis.values.index(values[parameter.axis.name])
            ]
            for parameter in self.parameters
        }

    def deployment(self, params: Mapping[str, Scalar]) -> Deployment:
        """Return the deployment of Optuna's parameters.

        Raises:
            KeyError: A parameter is missing.
            ValueError: A code that the axis does not have.
        """
        return deployment_from_axes(
            {
                parameter.axis.name: parameter.axis.values[
                    parameter.codes.index(params[parameter.name])
                ]
                for parameter in self.parameters
            }
        )

    def indices(self, params: Mapping[str, Scalar]) -> tuple[int, ...]:
        """Return the position of each parameter's code on its axis."""
        return tuple(
            parameter.codes.index(params[parameter.name]) for parameter in self.parameters
        )

    def params_at(self, indices: tuple[int, ...]) -> dict[str, Scalar]:
        """Return the parameters at a lattice position; the inverse of :meth:`indices`."""
        return {
            parameter.name: parameter.codes[index]
            for parameter, index in zip(self.parameters, indices, strict=True)
        }

    def allows(self, indices: tuple[int, ...]) -> bool:
        """Tell whether the rules of the space allow a lattice position."""
        point = {
            parameter.axis.name: parameter.axis.values[index]
            for parameter, index in zip(self.parameters, indices, strict=True)
        }
        return all(rule.allows(point) for rule in self.space.rules)


def parameter_from_axis(axis: Axis) -> Parameter:
    """Choose how Optuna sees an axis."""
    values = axis.values
    if not _are_integers(values):
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return _ranked(axis)
        return Parameter(
            name=axis.name,
            axis=axis,
            distribution=CategoricalDistribution(values),
            codes=values,
        )
    integers = [int(value) for value in values]
    exponents = [math.log2(value) if value > 0 else math.nan for value in integers]
    if all(exponent.is_integer() for exponent in exponents) and _step(exponents) is not None:
        return _integral(f"log2({axis.name})", axis, [int(exponent) for exponent in exponents])
    if _step(integers) is not None:
        return _integral(axis.name, axis, integers)
    return _ranked(axis)


def _ranked(axis: Axis) -> Parameter:
    return _integral(f"rank({axis.name})", axis, list(range(len(axis.values))))


def _integral(name: str, axis: Axis, codes: list[int]) -> Parameter:
    step = _step(codes)
    assert step is not None
    distribution = IntDistribution(codes[0], codes[-1], step=int(step))
    return Parameter(name=name, axis=axis, distribution=distribution, codes=tuple(codes))


def _are_integers(values: tuple[Scalar, ...]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _step(values: list[int] | list[float]) -> float | None:
    """Return the common difference of ascending numbers, or None where they have none."""
    differences = {right - left for left, right in pairwise(values)}
    if len(differences) > 1:
        return None
    return differences.pop() if differences else 1
