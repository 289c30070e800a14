"""A lock between processes, held by the kernel: it ends with the process, however that ends.

Plain ``flock`` on a file that is removed again. Waiting costs nothing (no polling). ``kill -9``
leaves the empty file, which holds nobody up and goes with :func:`drop_dead`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock called ``path``, waiting for other processes and threads; not re-entrant.

    Raises:
        OSError: The lock file cannot be made, or the file system has no locks.
    """
    descriptor = _waited_for(path)
    try:
        yield
    finally:
        try:
            # safe while it is held: whoever waits sees that its file lost the name, and retries
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def held_file(path: Path) -> int:
    """Make ``path`` and lock it; returns the descriptor whose closing ends the lock.

    Raises:
        OSError: The file cannot be made, or somebody holds it.
    """
    descriptor = _opened(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def is_held(path: Path) -> bool:
    """Tell whether a living process holds ``path``; a missing file is held by nobody."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def drop_dead(path: Path) -> None:
    """Remove the lock file of a process that was killed; one that is held stays.

    Raises:
        OSError: It cannot be removed.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink > 0:  # else the name is another's by now
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)


def _waited_for(path: Path) -> int:
    while True:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            still_named = os.fstat(descriptor).st_nlink > 0
        except BaseException:
            os.close(descriptor)
            raise
        if still_named:
            return descriptor
        os.close(descriptor)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
