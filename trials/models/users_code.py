"""The user's own functions: found by name, run with their errors explained, known by content.

A torch factory and a custom metric are code that a space file names as
``package.module:function``. What they compute depends on that code, so its content is part of
every key that the store makes from it: edited code is other code, and no old number is ever
reported for it.
"""

import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from search_spaces.spelling import did_you_mean
from trials.errors import TrialError
from trials.models.onnx_model import one_line

_OWN_PACKAGES = ("optimizer", "search_spaces", "trials")
_SHIPPED_FACTORIES = "search_spaces.shipped."


def function_from_name(name: str, *, key: str, refusal: type[TrialError]) -> Callable[..., Any]:
    """Import the function that a space file names as ``package.module:function``.

    Args:
        name: Looked up as Python does, on ``sys.path`` only.
        key: Key in the space file, for messages.
        refusal: What to raise.

    Raises:
        TrialError: As ``refusal``: no such module or function, or the import breaks.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise refusal(f"{key}: importing {module_name} failed: {reason_of(error)}") from error
        raise refusal(
            f"{key}: {name}: there is no module {error.name!r}; install it, or add its folder to "
            f"PYTHONPATH (for {error.name}.py in this folder: export PYTHONPATH=.)"
        ) from error
    except Exception as error:
        raise refusal(f"{key}: importing {module_name} failed: {reason_of(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [each for each, value in vars(module).items() if callable(value)]
        raise refusal(
            f"{key}: {module_name} has no function {function_name!r}; "
            f"{did_you_mean(function_name, known)}"
        )
    found: Callable[..., Any] = function
    return found


@contextmanager
def users_code(what: str, *, refusal: type[TrialError]) -> Iterator[None]:
    """Turn whatever the user's own code raises into one line of ours.

    Raises:
        TrialError: As ``refusal``, unless it is a TrialError already.
    """
    try:
        yield
    except TrialError:
        raise
    except Exception as error:
        raise refusal(f"{what} failed: {reason_of(error)}") from error


def code_digest() -> str:
    """Identify all code that this process has loaded and that belongs to the user.

    That is every loaded module with a source file that is part of neither Python, nor an installed
    package, nor trifront; of trifront only the factories of its shipped models. Call it after
    :func:`function_from_name`, which loads the function with everything that it imports; unrelated
    modules of the user only make the digest more careful. A file that is edited later changes
    nothing: this process goes on with what it has loaded.

    Returns:
        SHA-256, hexadecimal, of the modules' names and sources.
    """
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if origin is not None and _is_users(name, Path(origin)):
            digest.update(f"{name}\0".encode())
            digest.update(_loaded_source(module, origin))
    return digest.hexdigest()


@cache
def _loaded_source(_module: ModuleType, origin: str) -> bytes:
    """Digest a module's source once, for the file may become another than what runs here."""
    return hashlib.sha256(Path(origin).read_bytes()).digest()


def _is_users(name: str, origin: Path) -> bool:
    if name.startswith(_SHIPPED_FACTORIES):
        return True
    if name.partition(".")[0] in _OWN_PACKAGES or name == "__main__" or not origin.is_file():
        return False
    return not _is_installed(origin)


@cache
def _is_installed(origin: Path) -> bool:
    """Tell it once of each of the thousands of modules that a process with torch has loaded."""
    return any(origin.resolve().is_relative_to(folder) for folder in _installed())


@cache
def _installed() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(Path(paths[kind]).resolve() for kind in ("stdlib", "platstdlib", "purelib"))


def reason_of(error: BaseException) -> str:
    """Put what is at the bottom of an error into one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(str(error))}"
