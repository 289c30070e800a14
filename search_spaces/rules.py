"""Rules between axes: Python-like conditions such as ``concurrency * threads <= 4``.

Only arithmetic, comparisons, ``and``/``or``/``not``, ``in`` and literals are understood; a rule is
interpreted from its syntax tree and never executed as code.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search_spaces.deployment import Scalar
from search_spaces.errors import SpaceError

_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
