"""Hold a space against what a backend honours.

An axis value that a backend ignores is refused with a reason and never searched: its trials would
be duplicates that look like discoveries.
"""

from dataclasses import replace

from search_spaces.deployment import LOAD_AXES, REQUIRED_AXES, Deployment, Precision, Scalar
from search_spaces.errors import SpaceError
from search_spaces.space import Axis, SearchSpace
from search_spaces.spelling import did_you_mean
from trials.backend import Capabilities, EngineSpec, Option, Scope


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
) -> EngineSpec:
    """Reduce a deployment to what changes its engine, with defaults filled in.

    Args:
        deployment: Its options of scope SERVING leave no trace.
        backend_name: Name of the backend.
        model_digest: SHA-256 of the converted ONNX content.
        capabilities: Those of the backend.
        environment: The backend's.
    """
    chosen = dict(deployment.options)
    options = tuple(
        (option.name, chosen.get(option.name, option.default))
        for option in sorted(capabilities.options, key=lambda option: option.name)
        if option.scope is Scope.ENGINE
    )
    return EngineSpec(
        backend=backend_name,
        model_digest=model_digest,
        precision=deployment.precision,
        batch_size=batch_in_engine(deployment, capabilities),
        options=options,
        environment=environment,
    )


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
    if option is None:
        mend = did_you_mean(axis.name, options)
        return (
            f"backend {backend!r} has no option {axis.name!r}, so its values would be tried in "
            f"vain; {mend}"
        )
    for value in axis.values:
        if not _takes(option, value):
            return (
                f"backend {backend!r} does not take {_written(value)} for {option.name} "
                f"({option.help}); use {_known(option)}"
            )
    return None


def _takes(option: Option, value: Scalar) -> bool:
    if option.choices:  # True equals 1 in Python, but not in a space file
        return any(value == each and type(value) is type(each) for each in option.choices)
    return type(value) is int and value >= 1


def _known(option: Option) -> str:
    return ", ".join(map(_written, option.choices)) if option.choices else "an integer >= 1"


def _written(value: Scalar) -> str:
    """Write a value as YAML does."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def batch_in_engine(deployment: Deployment, capabilities: Capabilities) -> int | None:
    """Return the batch size that a deployment's engine is made for; None where it serves any."""
    chosen = {option.name: option.default for option in capabilities.options}
    chosen |= dict(deployment.options)
    bound = (
        capabilities.batch_in_engine
        or deployment.precision in capabilities.batch_bound
        or any(chosen.get(name) == value for name, value in capabilities.batch_fixing)
    )
    return deployment.batch_size if bound else None


def engines_of(space: SearchSpace, capabilities: Capabilities) -> tuple[Deployment, ...]:
    """Return one deployment for each engine that the space's deployments need.

    The engines of two deployments are the same where variant, precision, options of scope ENGINE
    and, where it matters, batch size are.

    Args:
        space: What is to be built.
        capabilities: Those of its backend.
    """
    in_engine = [option.name for option in capabilities.options if option.scope is Scope.ENGINE]
    found: dict[tuple[Scalar | None, ...], Deployment] = {}
    for deployment in space.deployments():
        chosen = dict(deployment.options)
        parts = (
            deployment.variant,
            deployment.precision,
            batch_in_engine(deployment, capabilities),
            *(chosen.get(name) for name in in_engine),
        )
        found.setdefault(parts, deployment)
    return tuple(found.values())
