"""Run a command that ends with whoever asked for it, however that one ends.

Started as ``python -m optimizer.dashboard.guard <command>``, in a process group of its own, with a
pipe as its standard input. Nobody ever writes into the pipe: its end says that the owner has gone,
be it by a kill -9, after which no owner can clean up. Then the group is ended, which is the
command and all that it started: MLflow's server is a child of a child, which would outlive a
signal that reaches the first alone.
"""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

_GRACE_S = 3.0
_LOOK_S = 0.2  # for the command's own end, which does not wake us


def main() -> None:
    """Run the command of the command line until it ends or the owner goes."""
    for ours in (signal.SIGINT, signal.SIGTERM):  # the command hears them, and we outlive it
        signal.signal(ours, lambda *_: None)
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    while command.poll() is None and not _owner_is_gone():
        pass
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        command.wait(_GRACE_S)
    os.killpg(0, signal.SIGKILL)  # what is left, and ourselves


def _owner_is_gone() -> bool:
    readable, _, _ = select.select([sys.stdin.fileno()], [], [], _LOOK_S)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    main()
