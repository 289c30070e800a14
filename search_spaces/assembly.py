"""From a checked document to a SearchSpace: what needs two sections, or the disk, to be checked.

Values are put in one canonical order (numbers ascending, precisions from fp32 down, names
alphabetical, objectives as in the list of metrics), so that two files that mean the same give the
same space: a study stores axes and objectives by position.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from search_spaces.bounds import constraints_from_texts, objectives_from_document
from search_spaces.deployment import REQUIRED_AXES, Precision, Scalar
from search_spaces.document import (
    AxesDocument,
    SpaceDocument,
    VariantDocument,
)
from search_spaces.errors import SpaceError
from search_spaces.feasibility import check_rules
from search_spaces.inputs import Inputs
from search_spaces.keeping import calibrated_by, keep_rules
from search_spaces.loads import load_axes, load_rules, plan_from_document
from search_spaces.rules import Rule, rule_from_text
from search_spaces.space import (
    Axis,
    FakeSource,
    OnnxSource,
    SearchSpace,
    TorchSource,
    VariantSource,
)
from search_spaces.spelling import did_you_mean
from search_spaces.tasks import task_from_document

FAKE = "fake"


def space_from_document(document: SpaceDocument, *, path: Path) -> SearchSpace:
    """Assemble the space, relative paths starting at the folder of ``path``.

    Raises:
        SpaceError: Sections that contradict each other, a file that is not there, a rule or
            constraint that cannot be meant, a space without a feasible point; the message names
            ``path`` and the key.
    """
    try:
        return _assembled(document, path)
    except SpaceError as error:
        raise SpaceError(error.problem, source=str(path), key=error.key) from error


def _assembled(document: SpaceDocument, path: Path) -> SearchSpace:
    inputs = Inputs(folder=path.parent)
    axes = _axes(document.axes, [variant.name for variant in document.variants])
    task = task_from_document(
        document.task,
        inputs=inputs,
        fake=document.backend == FAKE,
        calibrated_by=calibrated_by(axes),
    )
    rules = (*_rules(document.rules, axes), *load_rules(axes), *keep_rules(axes))
    _check_words(rules, axes, [variant.name for variant in document.variants])
    check_rules(axes, rules)
    return SearchSpace(
        name=document.name,
        source=str(path),
        backend=document.backend,
        task=task,
        variants=tuple(_variants(document, inputs, searched=axes[0].values)),
        axes=axes,
        rules=rules,
        objectives=objectives_from_document(document.objectives, kind=task.kind),
        constraints=constraints_from_texts(document.constraints, kind=task.kind),
        plan=plan_from_document(document.measure, document.axes, inputs),
    )


def _axes(document: AxesDocument, names: Sequence[str]) -> tuple[Axis, ...]:
    for position, name in enumerate(names):
        if name in names[:position]:
            raise SpaceError(
                f"{name!r} stands twice; give each variant a name of its own",
                key=f"variants[{position}].name",
            )
    chosen = names if document.variant is None else document.variant
    for position, name in enumerate(chosen):
        if name not in names:
            raise SpaceError(
                f"there is no variant {name!r}; {did_you_mean(name, names)}",
                key=f"axes.variant[{position}]",
            )
    order = list(Precision)
    required: tuple[Iterable[Scalar], ...] = (
        sorted(chosen),
        (word.value for word in sorted(document.precision, key=order.index)),
        sorted(document.batch_size),
        sorted(document.concurrency),
    )
    options = sorted(document.__pydantic_extra__.items())
    return (
        *(
            Axis(name=name, values=tuple(values))
            for name, values in zip(REQUIRED_AXES, required, strict=True)
        ),
        *load_axes(document),
        *(Axis(name=name, values=tuple(sorted(values))) for name, values in options),
    )


def _rules(texts: Sequence[str], axes: Sequence[Axis]) -> Iterable[Rule]:
    for position, text in enumerate(texts):
        try:
            yield rule_from_text(text, axes=[axis.name for axis in axes])
        except SpaceError as error:
            raise SpaceError(error.problem, key=f"rules[{position}]") from error


def _check_words(rules: Sequence[Rule], axes: Sequence[Axis], variants: Sequence[str]) -> None:
    """Refuse text that an axis can never have: the rule would silently do nothing."""
    known = {axis.name: [str(value) for value in axis.values] for axis in axes}
    known["variant"] = list(variants)  # a rule may speak of what the axes leave out tonight
    known["precision"] = [word.value for word in Precision]
    for position, rule in enumerate(rules):
        for axis, word in rule.mentions():
            if word not in known[axis]:
                raise SpaceError(
                    f"rule {rule.text!r}: {axis} is never {word!r}; "
                    f"{did_you_mean(word, known[axis])}",
                    key=f"rules[{position}]",
                )


def _variants(
    document: SpaceDocument, inputs: Inputs, *, searched: Sequence[Scalar]
) -> Iterable[VariantSource]:
    for position, variant in enumerate(document.variants):
        key = f"variants[{position}]"
        _check_form(variant, key, fake=document.backend == FAKE)
        if variant.name in searched:
            yield _variant(variant, key, inputs)


def _check_form(variant: VariantDocument, key: str, *, fake: bool) -> None:
    forms = {"onnx": variant.onnx, "torch": variant.torch, "fake": variant.fake}
    given = [form for form, value in forms.items() if value is not None]
    if len(given) != 1:
        found = f"both {given[0]} and {given[1]}" if given else "no model"
        raise SpaceError(
            f"{variant.name!r} has {found}; give exactly one of onnx, torch, fake", key=key
        )
    if fake and given != [FAKE]:
        raise SpaceError(
            f"{variant.name!r} is a model, and backend: fake runs none; give it `fake:` numbers "
            "or write backend: ort",
            key=f"{key}.{given[0]}",
        )
    if not fake and given == [FAKE]:
        raise SpaceError(
            f"{variant.name!r} has only numbers for the fake backend; give it `onnx:` or `torch:` "
            "or write backend: fake",
            key=f"{key}.fake",
        )


def _variant(variant: VariantDocument, key: str, inputs: Inputs) -> VariantSource:
    if variant.onnx is not None:
        return OnnxSource(name=variant.name, path=inputs.file(variant.onnx, key=f"{key}.onnx"))
    if variant.torch is not None:
        torch = variant.torch
        return TorchSource(
            name=variant.name,
            factory=torch.factory,
            weights=inputs.file(torch.weights, key=f"{key}.torch.weights"),
            input_shape=tuple(torch.input_shape),
            input_dtype=torch.input_dtype,
        )
    assert variant.fake is not None
    return FakeSource(name=variant.name, **variant.fake.model_dump())
