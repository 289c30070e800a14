"""How a job in a worker process tells its owner how far it is, and hears that it is to stop."""

import sys
from multiprocessing.connection import Connection

from trials.errors import AbandonedError
from trials.isolation.messages import Heard, Phase, Progress


class Teller:
    """Tells the owner how far a job is, and waits until it has heard."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def phase(self, name: str) -> None:
        """Tell of a step as it begins: the owner may have to clear the machine for it.

        Raises:
            AbandonedError: The owner wants no more of it.
        """
        self._tell(Phase(name=name))

    def progress(self, name: str, share: float) -> None:
        """Tell how far something is that may be broken off.

        Args:
            name: What is done just now.
            share: Of all that is to be done, from 0 to 1.

        Raises:
            AbandonedError: The owner wants it broken off.
        """
        self._tell(Progress(name=name, share=share))

    def _tell(self, message: Phase | Progress) -> None:
        try:
            self._connection.send(message)
            heard: Heard = self._connection.recv()
        except (BrokenPipeError, ConnectionResetError, EOFError):
            sys.exit(0)  # nobody is left to tell
        if heard.stop:
            raise AbandonedError(f"stopped in {message}")
