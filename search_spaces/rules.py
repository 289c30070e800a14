"""Rules between axes: Python-like conditions such as ``concurrency * threads <= 4``.

Only arithmetic, comparisons, ``and``/``or``/``not``, ``in`` and literals are understood; a rule is
interpreted from its syntax tree and never executed as code.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from search_spaces.conditions import condition_from_text, tree_from_text
from search_spaces.deployment import Scalar
from search_spaces.errors import SpaceError
from search_spaces.spelling import did_you_mean

_LONGEST = 500  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A condition that every deployment of a space meets; made by :func:`rule_from_text`.

    Attributes:
        text: The condition as it was written.
        names: The axes that it speaks of.
    """

    text: str
    names: frozenset[str]

    def allows(self, point: Mapping[str, Scalar]) -> bool:
        """Tell whether the deployment with these axis values meets the rule.

        Args:
            point: A value for every axis in ``names``; others are not looked at.

        Raises:
            SpaceError: The rule has no meaning there (a division by zero, text where a number is
                wanted). A space is checked for that when it is made.
        """
        return condition_from_text(self.text)(point)

    def canonical(self) -> str:
        """Return the condition in one spelling, so that spaces and quotes make no difference."""
        return ast.unparse(tree_from_text(self.text))

    def mentions(self) -> Iterator[tuple[str, str]]:
        """Yield each (axis, text) that the rule compares, to find words that no axis has."""
        for node in ast.walk(tree_from_text(self.text)):
            if isinstance(node, ast.Compare):
                terms = [node.left, *node.comparators]
                names = [term.id for term in terms if isinstance(term, ast.Name)]
                for name in names:
                    yield from ((name, text) for term in terms for text in _texts(term))


def rule_from_text(text: str, *, axes: Sequence[str]) -> Rule:
    """Parse a condition and check its words, without knowing the axes' values.

    Raises:
        SpaceError: A syntax error, a name that is no axis, or anything but arithmetic,
            comparisons, ``and``/``or``/``not``, ``in`` and literals.
    """
    if len(text) > _LONGEST:
        raise SpaceError(
            f"the rule has {len(text)} characters, at most {_LONGEST} are read; split it"
        )
    tree = tree_from_text(text.strip())
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    condition_from_text(text.strip())
    for name in names:
        if name not in axes:
            raise SpaceError(
                f"rule {text!r} names no axis with {name!r}; {did_you_mean(name, axes)} "
                "(text stands in quotes)"
            )
    if not names:
        raise SpaceError(f"rule {text!r} names no axis; {did_you_mean('', axes)}")
    return Rule(text=text.strip(), names=frozenset(names))


def _texts(term: ast.expr) -> Iterator[str]:
    for node in ast.walk(term):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
