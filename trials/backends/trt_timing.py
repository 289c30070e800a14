"""Timings of kernels, kept between builds so that none is taken twice on one GPU.

Best effort: a file that is missing, damaged or of another version costs time and never an engine.
One file for each library version and GPU; whoever built adds to it under a lock.

References:
    NVIDIA, TensorRT documentation, ITimingCache: bound to the GPU and the version that made it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from trials.store.locks import locked


def cache_file(shelf: Path, environment: tuple[tuple[str, str], ...]) -> Path:
    """Name the file for a library and device; they are the key, as for engines.

    Args:
        shelf: Folder of all of them.
        environment: The backend's.
    """
    key = hashlib.sha256(repr(environment).encode()).hexdigest()[:32]
    return shelf / f"{key}.timings"


@contextmanager
def timings(config: Any, path: Path, said: list[str]) -> Iterator[None]:
    """Lend a builder the timings that are known and keep those that it adds.

    Args:
        config: An ``IBuilderConfig`` that builds in the body.
        path: Of the file; need not exist.
        said: Where a line goes about what could not be read or kept.
    """
    cache = _known(config, path, said)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        said.append("the kept timings are of another GPU or version; they are not used")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    yield
    try:
        _keep(config, path, said)
    except OSError as error:
        said.append(f"timings could not be kept: {error}")


def _known(config: Any, path: Path, said: list[str]) -> Any:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        said.append(f"kept timings could not be read: {error}")
        content = b""
    cache = config.create_timing_cache(content)
    if cache is None:
        said.append(f"{path.name} holds no timings; it is written anew")
        cache = config.create_timing_cache(b"")
    return cache


def _keep(config: Any, path: Path, said: list[str]) -> None:
    """Add what this build has timed to what others have kept meanwhile.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = config.get_timing_cache()
    with locked(path.with_suffix(".lock")):
        kept = _known(config, path, said)
        if not kept.combine(made, ignore_mismatch=False):
            kept = made
        draft = path.with_name(f"{path.name}.{uuid4().hex}")
        try:
            draft.write_bytes(bytes(kept.serialize()))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
