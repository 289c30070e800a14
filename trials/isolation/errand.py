"""Call one of our functions in a fresh process, which dies afterwards.

For work that shares nothing with a search: its faults, its memory and its threads end with it.
"""

import sys
from collections.abc import Callable
from typing import TypeVar, cast

from trials.isolation.child import Child, Limits
from trials.isolation.messages import Errand

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


def run_errand(
    function: Callable[[_Argument], _Result], argument: _Argument, limits: Limits
) -> _Result:
    """Call a function of a module of ours in a process of its own.

    Args:
        function: At the top of its module.
        argument: Pickled on its way there, as is the result on its way back.
        limits: Of the whole errand, the start of the process included.

    Raises:
        DeadlineError: It took too long and was killed.
        MemoryLimitError: It took more memory than allowed and was killed.
        WorkerDiedError: The process died.
        WorkerBugError: An exception that nobody foresaw.
        TrialError: The function raised it on purpose; likewise SpaceError.
    """
    child = Child("")  # opens no session
    try:
        errand = Errand(
            import_path=tuple(sys.path),
            function=f"{function.__module__}:{function.__qualname__}",
            argument=argument,
        )
        return cast("_Result", child.ask(errand, limits, on_phase=lambda _: None))
    finally:
        child.bury()
