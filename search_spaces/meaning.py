"""What a space means: everything that changes a number or its place, and nothing else.

A study carries the meaning of its space and refuses to go on with another one. So names of files,
folders, comments, the order of keys and of values, and the name of the space are left out; models
and data stand for themselves by the digest of their content.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict

from search_spaces.space import Axis, MeasuringPlan, SearchSpace, TorchSource

MEANING_VERSION = 1

_SPLITS = ("calibration", "search", "report")
_DIGEST_LENGTH = 64  # hexadecimal SHA-256
_DIGEST_SHOWN = 12  # enough to tell two apart by eye


def meaning_of(space: SearchSpace, *, digests: Mapping[str, str]) -> dict[str, object]:
    """Reduce a space to canonical lists, mappings and scalars that survive JSON unchanged.

    Args:
        space: The space.
        digests: SHA-256 by ``variant:<name>`` for every variant, ``data:<split>`` for the splits
            that there are, ``code:metric`` for a custom metric, and ``weights:<name>`` where a
            torch variant's weights are identified apart from its exported file.

    Raises:
        KeyError: A variant has no digest.
    """
    return {
        "version": MEANING_VERSION,
        "backend": space.backend,
        "task": _task(space, digests),
        "variants": {
            variant.name: _variant(variant.name, digests, torch=isinstance(variant, TorchSource))
            for variant in sorted(space.variants, key=lambda variant: variant.name)
        },
        "axes": {axis.name: _values(axis) for axis in sorted(space.axes, key=lambda a: a.name)},
        "rules": sorted({rule.canonical() for rule in space.rules}),
        "objectives": {
            objective.metric.name: objective.direction.value
            for objective in sorted(space.objectives, key=lambda each: each.metric.name)
        },
        "constraints": sorted(
            f"{each.metric.name} {'<=' if each.upper else '>='} {each.bound!r}"
            for each in space.constraints
        ),
        "measure": _measure(space.plan),
    }


def first_difference(old: Mapping[str, object], new: Mapping[str, object]) -> str | None:
    """Say where two meanings first differ, the study's before the file's; None where nowhere."""
    for key, (before, after) in _pairs(old, new, ()):
        if before != after:
            return f"{key}: {_shown(before)} in the study, {_shown(after)} in the file"
    return None


def _task(space: SearchSpace, digests: Mapping[str, str]) -> dict[str, object]:
    preprocessing = asdict(space.task.preprocessing) | {"dtype": _types(space)}
    code = {"metric_code": digests["code:metric"]} if "code:metric" in digests else {}
    return {
        "kind": space.task.kind.value,
        "metric": space.task.metric,
        **code,
        "data": {
            split: digests[f"data:{split}"] for split in _SPLITS if f"data:{split}" in digests
        },
        "preprocess": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in sorted(preprocessing.items())
        },
    }


def _measure(plan: MeasuringPlan) -> dict[str, object]:
    """Reduce the plan; without an open load it is what it was before there were any."""
    found = asdict(plan)
    arrivals, preferred = found.pop("arrivals"), found.pop("preferred_batch_sizes")
    if arrivals is not None:
        arrivals.pop("path", None)  # a trace stands for itself by its digest
        found["arrivals"] = {name: _listed(value) for name, value in sorted(arrivals.items())}
    if preferred:
        found["preferred_batch_sizes"] = sorted(preferred)
    return dict(sorted(found.items()))


def _listed(value: object) -> object:
    """Turn tuples into lists, as JSON does."""
    return [_listed(each) for each in value] if isinstance(value, tuple) else value


def _types(space: SearchSpace) -> object:
    """Reduce types that are given by input to one where they are all the same."""
    dtype = space.task.preprocessing.dtype
    if isinstance(dtype, str):
        return dtype
    kinds = {kind for _, kind in dtype}
    return dict(dtype) if len(kinds) > 1 else kinds.pop()


def _variant(name: str, digests: Mapping[str, str], *, torch: bool) -> dict[str, object]:
    identity: dict[str, object] = {"digest": digests[f"variant:{name}"]}
    if torch and f"weights:{name}" in digests:
        identity["weights"] = digests[f"weights:{name}"]
    return identity


def _values(axis: Axis) -> list[object]:
    return sorted(axis.values, key=lambda value: (str(type(value)), value))


def _pairs(
    old: Mapping[str, object], new: Mapping[str, object], place: tuple[str, ...]
) -> list[tuple[str, tuple[str | None, str | None]]]:
    """Flatten both into (dotted key, (old, new)), values as JSON text, None where absent."""
    found: list[tuple[str, tuple[str | None, str | None]]] = []
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _pairs(before, after, (*place, key))
        else:
            # as JSON, because True == 1 in Python and not in a space
            texts = tuple(json.dumps(side[key]) if key in side else None for side in (old, new))
            found.append((".".join((*place, key)), (texts[0], texts[1])))
    return found


def _shown(text: str | None) -> str:
    if text is None:
        return "nothing"
    value = json.loads(text)
    if isinstance(value, str) and len(value) == _DIGEST_LENGTH:
        return f"{value[:_DIGEST_SHOWN]}…"
    if isinstance(value, dict) and len(value) == 1:
        return ", ".join(f"{key} {_shown(json.dumps(each))}" for key, each in value.items())
    return text
