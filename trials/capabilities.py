"""Hold a space against what a backend honours.

An axis value that a backend ignores is refused with a reason and never searched: its trials would
be duplicates that look like discoveries.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product

from search_spaces.deployment import (
    LOAD_AXES,
    REQUIRED_AXES,
    Deployment,
    Precision,
    Scalar,
    deployment_from_axes,
)
from search_spaces.errors import SpaceError
from search_spaces.space import Axis, SearchSpace
from search_spaces.spelling import did_you_mean
from trials.abilities import MetersEnergy, TellsSomeMemory
from trials.backend import Backend, Capabilities, EngineSpec, Option, Scope
from trials.errors import UnsupportedError
from trials.outcome import ENERGY, MEMORY

_MOST_KINDS = 100_000  # deployments looked at; a trial looks for itself too


def refuse_ignored(space: SearchSpace, capabilities: Capabilities) -> None:
    """Check that the space's backend honours every value of every axis.

    Raises:
        SpaceError: It does not; names the axis, the value, the reason and the mend.
    """
    for axis in space.axes:
        problem = None
        if axis.name == "precision":
            problem = _precision_problem(axis, space.backend, capabilities)
        elif axis.name not in (*REQUIRED_AXES, *LOAD_AXES):
            problem = _option_problem(axis, space.backend, capabilities)
        if problem is not None:
            raise SpaceError(problem, source=space.source, key=f"axes.{axis.name}")


def wanted_metrics(space: SearchSpace) -> tuple[str, ...]:
    """Name the metrics that a space cannot do without: its objectives, then its bounds."""
    objectives = tuple(one.metric.name for one in space.objectives)
    return (*objectives, *(one.metric.name for one in space.constraints))


def refuse_unmetered(space: SearchSpace, backend: Backend) -> None:
    """Check that the energy and memory a space asks for are told of all its deployments.

    Raises:
        UnsupportedError: They are not here; says why, and of which deployment.
    """
    wanted = wanted_metrics(space)
    if ENERGY in wanted:
        unmetered = f"backend {backend.name!r} runs where no energy is metered"
        meter = backend.why_no_energy if isinstance(backend, MetersEnergy) else lambda _: unmetered
        _refuse_untold(space, ENERGY, meter)
    if MEMORY in wanted and isinstance(backend, TellsSomeMemory):
        _refuse_untold(space, MEMORY, backend.why_no_peak_memory)


def _refuse_untold(space: SearchSpace, metric: str, why_none: Callable[[Deployment], str]) -> None:
    for deployment in _kinds(space):
        reason = why_none(deployment)
        if reason:
            raise UnsupportedError(
                f"{space.source}: there is no {metric} of '{deployment}': {reason}; take it out "
                "of objectives and constraints"
            )


def _kinds(space: SearchSpace) -> Iterator[Deployment]:
    """Yield a deployment of each combination of options and kind of load."""
    seen = set()
    for deployment in islice(space.deployments(), _MOST_KINDS):
        kind = (deployment.options, deployment.load is None)
        if kind not in seen:
            seen.add(kind)
            yield deployment


def refusal_of(precision: Precision, capabilities: Capabilities) -> str:
    """Say why a precision is not built; empty where it is."""
    if precision in capabilities.precisions:
        return ""
    return dict(capabilities.refusals).get(precision, "it has no such arithmetic")


def narrowed(space: SearchSpace, capabilities: Capabilities) -> SearchSpace:
    """Leave out the precisions that are not built, which may be all of them."""
    axes = tuple(
        replace(axis, values=tuple(v for v in axis.values if v in capabilities.precisions))
        if axis.name == "precision"
        else axis
        for axis in space.axes
    )
    return replace(space, axes=axes)


def engine_spec(
    deployment: Deployment,
    *,
    backend_name: str,
    model_digest: str,
    capabilities: Capabilities,
    environment: tuple[tuple[str, str], ...],
    largest_batch: int | None = None,
) -> EngineSpec:
    """Reduce a deployment to what changes its engine, with defaults filled in.

    Args:
        deployment: Its options of scope SERVING leave no trace.
        backend_name: Name of the backend.
        model_digest: SHA-256 of the converted model file.
        capabilities: Those of the backend.
        environment: The backend's.
        largest_batch: The largest of the space; None for the deployment's own.
    """
    chosen = dict(deployment.options)
    most = largest_in_engine(
        deployment, capabilities, largest=largest_batch or deployment.batch_size
    )
    options = {
        option.name: chosen.get(option.name, option.default)
        for option in capabilities.options
        if option.scope is Scope.ENGINE and not _is_silent(option, chosen)
    }
    if _is_dynamic(deployment, capabilities) and most is not None:
        # from 1 on: what is scored or arrives by chance leaves batches that are not full
        options |= {"min_batch_size": 1, "opt_batch_size": most, "max_batch_size": most}
    return EngineSpec(
        backend=backend_name,
        model_digest=model_digest,
        precision=deployment.precision,
        batch_size=batch_in_engine(deployment, capabilities),
        options=tuple(sorted(options.items())),
        environment=facts_of_engine(environment, chosen, capabilities),
    )


def facts_of_engine(
    environment: tuple[tuple[str, str], ...],
    chosen: Mapping[str, Scalar],
    capabilities: Capabilities,
) -> tuple[tuple[str, str], ...]:
    """Leave out the facts of tacit options that an engine does not use.

    Args:
        environment: The backend's, which calls such facts ``<option>.<fact>``.
        chosen: The engine's options by name; what is not named is at its default.
        capabilities: Those of the backend.
    """
    silent = tuple(f"{one.name}." for one in capabilities.options if _is_silent(one, chosen))
    return tuple(one for one in environment if not one[0].startswith(silent))


def _is_silent(option: Option, chosen: Mapping[str, Scalar]) -> bool:
    return option.is_tacit and chosen.get(option.name, option.default) == option.default


def _precision_problem(axis: Axis, backend: str, capabilities: Capabilities) -> str | None:
    honoured = ", ".join(capabilities.precisions)
    for value in axis.values:
        precision = Precision(str(value))
        reason = refusal_of(precision, capabilities)
        if reason:
            return f"backend {backend!r} does not build {precision}: {reason}; use {honoured}"
    return None


def _option_problem(axis: Axis, backend: str, capabilities: Capabilities) -> str | None:
    options = {option.name: option for option in capabilities.options}
    option = options.get(axis.name)
    inert = dict(capabilities.inert)
    if option is None and axis.name in inert:
        return (
            f"backend {backend!r} ignores {axis.name} here: {inert[axis.name]}; take the axis out"
        )
    if option is None:
        mend = did_you_mean(axis.name, options)
        return (
            f"backend {backend!r} has no option {axis.name!r}, so its values would be tried in "
            f"vain; {mend}"
        )
    refusals = dict(option.refusals)
    for value in axis.values:
        if value in refusals:
            return (
                f"backend {backend!r} does not honour {_written(value)} for {option.name} here: "
                f"{refusals[value]}; use {_known(option)}"
            )
        if not _takes(option, value):
            return (
                f"backend {backend!r} does not take {_written(value)} for {option.name} "
                f"({option.help}); use {_known(option)}"
            )
    return None


def _takes(option: Option, value: Scalar) -> bool:
    if option.choices:  # True equals 1 in Python, but not in a space file
        return any(value == each and type(value) is type(each) for each in option.choices)
    return type(value) is int and value >= option.least


def _known(option: Option) -> str:
    if option.choices:
        return ", ".join(map(_written, option.honoured))
    return f"an integer >= {option.least}"


def _written(value: Scalar) -> str:
    """Write a value as YAML does."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def batch_in_engine(deployment: Deployment, capabilities: Capabilities) -> int | None:
    """Return the one batch size that a deployment's engine serves; None where it serves more."""
    if _is_dynamic(deployment, capabilities):
        return None
    chosen = {option.name: option.default for option in capabilities.options}
    chosen |= dict(deployment.options)
    bound = (
        capabilities.batch_in_engine
        or deployment.precision in capabilities.batch_bound
        or any(chosen.get(name) == value for name, value in capabilities.batch_fixing)
    )
    return deployment.batch_size if bound else None


def engine_options(
    deployment: Deployment, capabilities: Capabilities
) -> tuple[tuple[str, Scalar], ...]:
    """Return the chosen options that change more than how an engine is served: (name, value)."""
    serving = {one.name for one in capabilities.options if one.scope is Scope.SERVING}
    return tuple(pair for pair in deployment.options if pair[0] not in serving)


def largest_in_engine(
    deployment: Deployment, capabilities: Capabilities, *, largest: int
) -> int | None:
    """Return the largest batch that a deployment's engine serves; None where it serves any.

    Args:
        deployment: Whose engine it is.
        capabilities: Those of its backend.
        largest: The largest of the space.
    """
    if _is_dynamic(deployment, capabilities):
        return largest
    return batch_in_engine(deployment, capabilities)


def _is_dynamic(deployment: Deployment, capabilities: Capabilities) -> bool:
    return capabilities.dynamic_batch in deployment.options


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIdentity:
    """Which deployments of a space share an engine.

    Attributes:
        axes: Axes along which engines always differ.
        with_batch: Values of these axes, in their order, at which the batch size makes another
            engine too.
    """

    axes: tuple[str, ...]
    with_batch: tuple[tuple[Scalar, ...], ...] = ()


def engine_identity(space: SearchSpace, capabilities: Capabilities) -> EngineIdentity:
    """Say which deployments of a space share an engine; see :func:`engines_of`.

    Args:
        space: Whose axes.
        capabilities: Those of its backend.
    """
    serving = {one.name for one in capabilities.options if one.scope is Scope.SERVING}
    shared = {"batch_size", "concurrency", *LOAD_AXES, *serving}
    axes = [axis for axis in space.axes if axis.name not in shared]
    first = {axis.name: axis.values[0] for axis in space.axes}
    with_batch = []
    for values in product(*(axis.values for axis in axes)):
        point = first | {axis.name: value for axis, value in zip(axes, values, strict=True)}
        if batch_in_engine(deployment_from_axes(point), capabilities) is not None:
            with_batch.append(values)
    return EngineIdentity(axes=tuple(axis.name for axis in axes), with_batch=tuple(with_batch))


def engines_of(space: SearchSpace, capabilities: Capabilities) -> tuple[Deployment, ...]:
    """Return one deployment for each engine that the space's deployments need.

    The engines of two deployments are the same where variant, precision, options of the scopes
    MODEL and ENGINE and, where it matters, batch size are.

    Args:
        space: What is to be built.
        capabilities: Those of its backend.
    """
    found: dict[object, Deployment] = {}
    for deployment in space.deployments():
        parts = (
            deployment.variant,
            deployment.precision,
            batch_in_engine(deployment, capabilities),
            engine_options(deployment, capabilities),
        )
        found.setdefault(parts, deployment)
    return tuple(found.values())
