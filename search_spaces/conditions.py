"""Conditions: the syntax tree of a rule, turned once into nested closures.

A space asks its rules at up to millions of points, so the tree is not walked each time. Nothing is
executed as code: what is not listed here is refused.

Kinds do not mix: arithmetic and ``<`` want numbers, ``and``/``or``/``not`` want conditions,
``==`` and ``in`` want values of one kind. Python would accept more (``True < 2``), by accident.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from search_spaces.deployment import Scalar
from search_spaces.errors import SpaceError

_Value: TypeAlias = Scalar | tuple[Scalar, ...]
_Term: TypeAlias = Callable[[Mapping[str, Scalar]], _Value]

_DEEPEST = 60  # levels of the syntax tree; far from the recursion limit, beyond any honest rule

_WORDS = {"true": True, "false": False}  # as YAML spells them

_ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[[float, float], float]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
}

_ORDER: dict[type[ast.cmpop], tuple[str, Callable[[float, float], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}


class _YamlWords(ast.NodeTransformer):
    """Read ``true`` and ``false`` as the space file does."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_WORDS[node.id]) if node.id in _WORDS else node


def tree_from_text(text: str) -> ast.expr:
    """Parse a condition as Python would, ``true`` and ``false`` being literals too.

    Raises:
        SpaceError: A syntax error, or nested too deeply.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an invalid escape is a slip, not a warning
            body = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise SpaceError(
            f"rule {text!r} is no condition ({reason}); write one such as 'concurrency <= 4'"
        ) from error
    if _depth(body) > _DEEPEST:
        raise SpaceError(f"rule {text!r} is nested too deeply; split it")
    tree: ast.expr = _YamlWords().visit(body)
    return tree


def _depth(tree: ast.expr) -> int:
    level: list[ast.AST] = [tree]
    depth = 0
    while level:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        depth += 1
    return depth


@lru_cache(maxsize=1024)
def condition_from_text(text: str) -> Callable[[Mapping[str, Scalar]], bool]:
    """Turn a condition into a function of the axis values, which raises SpaceError on nonsense.

    Raises:
        SpaceError: Not a condition, or a construct that is not understood.
    """
    try:
        term = _term(tree_from_text(text))
    except SpaceError as error:
        problem = error.problem
        if text not in problem:
            problem = f"rule {text!r}: {problem}"
        raise SpaceError(problem) from error
    return lambda point: _truth(term(point), "a rule")


def _term(node: ast.expr) -> _Term:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return lambda _: value
        case ast.Name(id=name):
            return lambda point: point[name]
        case ast.BoolOp():
            return _junction(node)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            return _unary(node)
        case ast.BinOp():
            return _arithmetic(node)
        case ast.Compare():
            return _comparison(node)
        case _:
            raise SpaceError(
                f"{ast.unparse(node)!r} is not understood in a rule; use arithmetic, comparisons, "
                "'and', 'or', 'not', 'in (...)', numbers and quoted text"
            )


def _junction(node: ast.BoolOp) -> _Term:
    terms = [_term(value) for value in node.values]
    if isinstance(node.op, ast.And):
        return lambda point: all(_truth(term(point), "'and'") for term in terms)
    return lambda point: any(_truth(term(point), "'or'") for term in terms)


def _unary(node: ast.UnaryOp) -> _Term:
    operand = _term(node.operand)
    if isinstance(node.op, ast.Not):
        return lambda point: not _truth(operand(point), "'not'")
    return lambda point: -_number(operand(point), "'-'")


def _arithmetic(node: ast.BinOp) -> _Term:
    if type(node.op) not in _ARITHMETIC:
        raise SpaceError(
            f"{ast.unparse(node)!r} is not understood in a rule; use + - * / // and %"
        )
    sign, function = _ARITHMETIC[type(node.op)]
    left, right = _term(node.left), _term(node.right)

    def term(point: Mapping[str, Scalar]) -> _Value:
        first, second = _number(left(point), f"'{sign}'"), _number(right(point), f"'{sign}'")
        try:
            return function(first, second)
        except ArithmeticError as error:
            raise SpaceError(
                f"{first!r} {sign} {second!r} has no value; guard or rewrite it"
            ) from error

    return term


def _comparison(node: ast.Compare) -> _Term:
    sides = [_term(node.left)]
    for sign, side in zip(node.ops, node.comparators, strict=True):
        member = isinstance(sign, ast.In | ast.NotIn)
        sides.append(_members(side) if member else _term(side))
    tests = [_test(sign) for sign in node.ops]

    def term(point: Mapping[str, Scalar]) -> _Value:
        values = [side(point) for side in sides]
        pairs = pairwise(values)
        return all(test(*pair) for test, pair in zip(tests, pairs, strict=True))

    return term


def _members(node: ast.expr) -> _Term:
    if not isinstance(node, ast.Tuple | ast.List | ast.Set):
        raise SpaceError(
            f"'in {ast.unparse(node)}' is not understood; list the values: in ('fp32', 'int8')"
        )
    terms = [_term(element) for element in node.elts]

    def members(point: Mapping[str, Scalar]) -> _Value:
        return tuple(_scalar(term(point)) for term in terms)

    return members


def _test(sign: ast.cmpop) -> Callable[[_Value, _Value], bool]:
    if type(sign) in _ORDER:
        name, function = _ORDER[type(sign)]
        return lambda left, right: function(
            _number(left, f"'{name}'"), _number(right, f"'{name}'")
        )
    match sign:
        case ast.Eq():
            return _equal
        case ast.NotEq():
            return lambda left, right: not _equal(left, right)
        case ast.In():
            return _within
        case ast.NotIn():
            return lambda left, right: not _within(left, right)
        case _:
            raise SpaceError("'is' is not understood in a rule; use == or !=")


def _equal(left: _Value, right: _Value) -> bool:
    if _kind(left) != _kind(right):
        raise SpaceError(
            f"{left!r} ({_kind(left)}) never equals {right!r} ({_kind(right)}); "
            "compare values of one kind"
        )
    return left == right


def _within(left: _Value, members: _Value) -> bool:
    assert isinstance(members, tuple)
    found = [_equal(left, member) for member in members]  # all of them: a late one may be nonsense
    return any(found)


def _kind(value: _Value) -> str:
    if isinstance(value, bool):
        return "a truth value"
    return "text" if isinstance(value, str) else "a number"


def _scalar(value: _Value) -> Scalar:
    assert not isinstance(value, tuple)
    return value


def _number(value: _Value, where: str) -> float:
    if isinstance(value, bool | str | tuple):
        raise SpaceError(f"{where} wants numbers and got {value!r}; compare text with == or in")
    return value


def _truth(value: _Value, where: str) -> bool:
    if not isinstance(value, bool):
        raise SpaceError(f"{where} wants a condition and got {value!r}; compare it with something")
    return value
