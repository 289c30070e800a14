"""YAML for space files: plain data, nothing stands twice, every slip has its line and column.

Stricter than PyYAML's safe loader where it would guess or forgive: a key that stands twice is
refused (the loader keeps the last one silently), so are anchors and aliases (a few lines of them
can mean gigabytes), and ``1e-3`` is a number, as in YAML 1.2, not text.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import SpaceError

_MOST_BYTES = 1_000_000  # a space of ten thousand axis values has a tenth of it


class _Loader(yaml.SafeLoader):
    """The safe loader, made stricter; its class attributes are its configuration."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        node = super().compose_node(parent, index)
        if self.anchors:
            raise yaml.composer.ComposerError(
                problem="anchors (&) and aliases (*) are not read; write the value out",
                problem_mark=None if node is None else node.start_mark,
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"key {key.value!r} stands twice; keep one of the two",
                        problem_mark=key.start_mark,
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def data_from_yaml(path: Path) -> object:
    """Read a YAML file as plain lists, mappings and scalars.

    Raises:
        SpaceError: The file cannot be read, is no text, is empty or is not YAML; the message has
            line and column.
    """
    text = _text(path)
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        raise SpaceError(_marked(error), source=str(path)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: dates and numbers that look right and are not, such as 2026-13-01
        reason = " ".join(str(error).split())
        raise SpaceError(f"is not readable as YAML ({reason})", source=str(path)) from error
    if data is None:
        raise SpaceError("is empty; `trifront init` writes a first one", source=str(path))
    return data


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SpaceError("is over 1 MB, which is no space file", source=str(path))
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpaceError("there is no such file; check the path", source=str(path)) from error
    except IsADirectoryError as error:
        raise SpaceError("is a folder; name the YAML file in it", source=str(path)) from error
    except UnicodeDecodeError as error:
        raise SpaceError(
            "is not UTF-8 text; name a YAML file, or save it as UTF-8", source=str(path)
        ) from error
    except OSError as error:
        raise SpaceError(f"cannot be read ({error.strerror})", source=str(path)) from error


def _marked(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    problem = error.problem or error.context or "not YAML"
    if r"character '\t'" in problem:
        problem = "a tab cannot indent in YAML; use spaces"
    if "expected '<document start>'" in problem:
        problem = "this is no `key: value` line; is it the YAML file that was meant?"
    return where + " ".join(problem.split())
