"""What ``pristine`` and its template process say to each other over their pipe, pickled.

The owner sends a ``Task``. The child that does it answers with ``Done``, ``Raised`` or ``Bug``, or
dies; then the template tells with ``Ended`` that the child is gone. They live here and not in
``pristine_process``, which runs as ``__main__``, where its types would have other names.
"""

from dataclasses import dataclass
from typing import TypeAlias

from trials.isolation.messages import Bug, Done, Raised


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Call one function of ours with one argument.

    Attributes:
        function: ``module:function``.
    """

    function: str
    argument: object

    @property
    def name(self) -> str:
        """The function's own name, for messages."""
        return self.function.rpartition(":")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The child is gone.

    Attributes:
        code: As :attr:`subprocess.Popen.returncode` has it.
    """

    code: int


Answer: TypeAlias = Done | Raised | Bug
