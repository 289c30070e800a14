from dataclasses import replace

import pytest

from search_spaces.deployment import Deployment, Precision, Scalar
from search_spaces.errors import SpaceError
from search_spaces.space import (
    Axis,
    MeasuringPlan,
    Preprocessing,
    SearchSpace,
    Task,
    TaskKind,
)
from trials.backend import Capabilities, EngineSpec, Option, Scope
from trials.backends.catalog import backend_named
from trials.capabilities import (
    engine_identity,
    engine_spec,
    engines_of,
    refuse_ignored,
)
from trials.errors import TrialError

CAPABILITIES = Capabilities(
    precisions=(Precision.FP32, Precision.INT8_DYNAMIC),
    refusals=((Precision.FP8, "the optimizer miscomputes it"),),
    options=(
        Option(name="threads", scope=Scope.SERVING, default=1, help="threads of a request"),
        Option(
            name="level", scope=Scope.ENGINE, default="all", choices=("all", "none"), help="fusing"
        ),
        Option(
            name="graphs", scope=Scope.ENGINE, default=False, choices=(False, True), help="capture"
        ),
    ),
    batch_bound=(Precision.INT8_DYNAMIC,),
)


def space(name: str, *values: Scalar) -> SearchSpace:
    axes = {
        "variant": ("v",),
        "precision": ("fp32",),
        "batch_size": (1, 2),
        "concurrency": (1,),
        name: values,
    }
    return SearchSpace(
        name="s",
        source="space.yaml",
        backend="ort",
        task=Task(
            kind=TaskKind.CLASSIFICATION, metric=None, data=None, preprocessing=Preprocessing()
        ),
        variants=(),
        axes=tuple(Axis(name=each, values=tuple(axes[each])) for each in axes),
        rules=(),
        objectives=(),
        constraints=(),
        plan=MeasuringPlan(),
    )


def test_option_that_came_later_leaves_engines_at_its_default_as_they_were() -> None:
    late = Option(
        name="late",
        scope=Scope.ENGINE,
        default="old",
        choices=("old", "new", "gone"),
        refusals=(("gone", "nobody has it"),),
        is_tacit=True,
        help="something",
    )
    capabilities = replace(CAPABILITIES, options=(*CAPABILITIES.options, late))
    facts = (("late.fact", "x"), ("library", "1"))

    def spec_of(capabilities: Capabilities, **options: Scalar) -> EngineSpec:
        return engine_spec(
            Deployment(
                variant="v",
                precision=Precision.FP32,
                batch_size=1,
                concurrency=1,
                options=tuple(options.items()),
            ),
            backend_name="b",
            model_digest="d",
            capabilities=capabilities,
            environment=facts if options.get("late") == "new" else facts[1:],
        )

    assert spec_of(capabilities) == spec_of(CAPABILITIES)
    assert spec_of(capabilities, late="old") == spec_of(CAPABILITIES)
    new = spec_of(capabilities, late="new")
    assert ("late", "new") in new.options
    assert new.environment == facts
    with pytest.raises(SpaceError, match="does not honour gone for late here: nobody has it; use"):
        refuse_ignored(space("late", "gone"), capabilities)


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("precision", ("fp32", "int8-dynamic")),
        ("threads", (1, 2, 64)),
        ("level", ("none",)),
        ("graphs", (False, True)),
    ],
)
def test_honoured_values_pass(axis: str, values: tuple[Scalar, ...]) -> None:
    refuse_ignored(space(axis, *values), CAPABILITIES)


@pytest.mark.parametrize(
    ("axis", "value", "message"),
    [
        ("precision", "fp8", "does not build fp8: the optimizer miscomputes it; use fp32"),
        ("precision", "int4", "does not build int4: it has no such arithmetic"),
        ("thread", 1, "has no option 'thread'.*did you mean 'threads'"),
        ("cuda", 1, "has no option 'cuda'.*use one of: graphs, level, threads"),
        ("threads", 0, r"does not take 0 for threads .*; use an integer >= 1"),
        ("threads", True, "does not take true for threads"),
        ("threads", 1.5, r"does not take 1\.5 for threads"),
        ("level", "some", "does not take some for level .*; use all, none"),
        ("graphs", 1, "does not take 1 for graphs .*; use false, true"),
    ],
)
def test_ignored_value_is_refused_with_the_reason(axis: str, value: Scalar, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        refuse_ignored(space(axis, value), CAPABILITIES)

    assert str(caught.value).startswith(f"space.yaml: axes.{axis}: backend 'ort' ")
    assert "\n" not in str(caught.value)


def deployment(**changes: object) -> Deployment:
    point = Deployment(variant="v", precision=Precision.FP32, batch_size=4, concurrency=2)
    return replace(point, **changes)  # type: ignore[arg-type] # fields of any type


def spec_of(point: Deployment, capabilities: Capabilities = CAPABILITIES) -> object:
    return engine_spec(
        point,
        backend_name="ort",
        model_digest="d",
        capabilities=capabilities,
        environment=(("cpu", "x"),),
    )


def test_serving_choices_share_one_engine() -> None:
    other = deployment(batch_size=8, concurrency=1, options=(("threads", 2),))

    assert spec_of(deployment()) == spec_of(other)


def test_default_of_an_engine_option_is_filled_in() -> None:
    assert spec_of(deployment()) == spec_of(deployment(options=(("level", "all"),)))
    assert spec_of(deployment()) != spec_of(deployment(options=(("level", "none"),)))


def test_batch_bound_precision_has_an_engine_per_batch_size() -> None:
    four = deployment(precision=Precision.INT8_DYNAMIC)
    eight = deployment(precision=Precision.INT8_DYNAMIC, batch_size=8)

    assert spec_of(four) != spec_of(eight)


def test_backend_with_the_batch_in_the_engine_builds_one_per_batch_size() -> None:
    capabilities = replace(CAPABILITIES, batch_in_engine=True)

    four, eight = (
        spec_of(deployment(), capabilities),
        spec_of(deployment(batch_size=8), capabilities),
    )

    assert four != eight


@pytest.mark.parametrize("name", ["fake", "ort", "tensorrt", "torch"])
def test_backends_are_found_by_name(name: str) -> None:
    assert backend_named(name).name == name


def test_option_that_fixes_the_batch_has_an_engine_per_batch_size() -> None:
    capabilities = replace(CAPABILITIES, batch_fixing=(("level", "none"),))
    fixed = deployment(options=(("level", "none"),))

    four, eight = (spec_of(replace(fixed, batch_size=size), capabilities) for size in (4, 8))

    assert four != eight
    assert spec_of(deployment(), capabilities) == spec_of(deployment(batch_size=8), capabilities)


def test_misspelt_backend_gets_a_suggestion() -> None:
    with pytest.raises(TrialError, match="did you mean 'fake'"):
        backend_named("fakee")


@pytest.mark.parametrize("target", ["SM75", "SM89"])
def test_no_reason_for_a_refusal_advises_what_the_refusal_advises_itself(target: str) -> None:
    """Else it reads "use int8; use fp16, fp32, int8"."""
    pytest.importorskip("tensorrt_rtx", reason="needs a TensorRT")
    backends = [backend_named("ort"), backend_named("fake")]
    backends.append(backend_named("tensorrt", target=target))

    reasons = [why for one in backends for _, why in one.capabilities().refusals]

    assert reasons
    assert not [why for why in reasons if "; use" in why]


@pytest.mark.parametrize(
    "capabilities",
    [
        CAPABILITIES,
        replace(CAPABILITIES, batch_bound=(), batch_in_engine=True),
        replace(CAPABILITIES, batch_fixing=(("graphs", True),)),
        replace(CAPABILITIES, batch_in_engine=True, dynamic_batch=("graphs", True)),
        replace(CAPABILITIES, batch_bound=()),
    ],
)
def test_identity_of_engines_tells_apart_as_many_as_are_built(capabilities: Capabilities) -> None:
    searched = space("graphs", False, True)  # noqa: FBT003 - values of an axis
    axes = {axis.name: axis for axis in searched.axes}
    axes["precision"] = Axis(name="precision", values=("fp32", "int8-dynamic"))
    axes["threads"] = Axis(name="threads", values=(1, 2))
    searched = replace(searched, axes=tuple(axes.values()))

    identity = engine_identity(searched, capabilities)

    engines = set()
    for deployment in searched.deployments():
        point = dict(deployment.axes())
        values = tuple(point[name] for name in identity.axes)
        engines.add((values, point["batch_size"] if values in identity.with_batch else None))
    assert identity.axes == ("variant", "precision", "graphs")
    assert len(engines) == len(engines_of(searched, capabilities))
