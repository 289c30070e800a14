"""Write down which names TensorRT's Python bindings have, from their source.

The data-centre flavour installs on machines with its GPUs alone. So that a call which a version
does not have fails a test on any machine and not the user on theirs, the tests hold what the code
calls against this record. Read from the pybind11 definitions of a clone of TensorRT's repository:

    scripts/record_tensorrt_names.py CLONE v10.16 v11.1 > tests/trials/tensorrt_names.json
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = "https://github.com/NVIDIA/TensorRT"
SOURCES = (
    "python/src/infer/pyCore.cpp",
    "python/src/infer/pyFoundationalTypes.cpp",
    "python/src/infer/pyGraph.cpp",
    "python/src/parsers/pyOnnx.cpp",
)
_LAYER = re.compile(r"I\w+Layer(Base)?$")  # networks come from ONNX files; no layer is made by us
_KIND = re.compile(r'py::(class_|enum_)<[^;]*?>\s*\w*\s*[({]\s*(\w+)\s*,\s*"(\w+)"')
_MEMBER = re.compile(
    r"\.(?:def|def_static|def_property|def_property_readonly|def_readwrite|def_readonly|"
    r'def_property_static|value)\(\s*"(\w+)"'
)


def names_in(source: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each class or enumeration with its members, perhaps a class more than once."""
    without = re.sub(r"#if ENABLE_INETWORK_SERIALIZE.*?#endif", "", source, flags=re.DOTALL)
    found = list(_KIND.finditer(without))
    ends = [match.start() for match in found[1:]] + [len(without)]
    outer = ""
    for match, end in zip(found, ends, strict=True):
        _, scope, name = match.groups()
        text = without[match.end() : end]
        if scope != "m":  # within the class before it, whose own members go on behind
            own, _, text = text.partition(";")
            yield name, _MEMBER.findall(own)
            yield outer, [name, *_MEMBER.findall(text)]
        elif not _LAYER.match(name):
            outer = name
            yield name, _MEMBER.findall(text)


def recorded(clone: Path, tag: str) -> dict[str, object]:
    """Read one version."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(clone), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    names: dict[str, list[str]] = {}
    for path in SOURCES:
        for kind, members in names_in(git("show", f"{tag}:{path}")):
            names[kind] = sorted({*names.get(kind, []), *members})
    return {
        "tag": tag,
        "commit": git("rev-list", "-1", tag).strip(),
        "names": dict(sorted(names.items())),
    }


def main() -> None:
    """Write the record of the versions that the command line names to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clone", type=Path)
    parser.add_argument("tags", nargs="+")
    order = parser.parse_args()
    document = {
        "about": "Names in TensorRT's Python bindings, without layers, read from their source by "
        "scripts/record_tensorrt_names.py.",
        "repository": REPOSITORY,
        "sources": SOURCES,
        "versions": [recorded(order.clone, tag) for tag in order.tags],
    }
    text = json.dumps(document, indent=1)
    one_line = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda list_: f"[{list_[1]}]", text)
    sys.stdout.write(re.sub(r'(?<=",)\n +(?="[^"]*"[,\]])', " ", one_line) + "\n")


if __name__ == "__main__":
    main()
