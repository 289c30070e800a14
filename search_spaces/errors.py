"""Errors of the deployment space."""


class SpaceError(Exception):
    """A space file that cannot be meant; the message names the file, the key and the mend."""

    def __init__(self, problem: str, *, source: str = "", key: str = "") -> None:
        self.problem = problem
        self.source = source
        self.key = key
        super().__init__(": ".join(part for part in (source, key, problem) if part))
