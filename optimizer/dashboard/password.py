"""The password of a dashboard that others can reach: where it comes from, and how it is compared.

It is never an argument: command lines can be read by everybody on a machine and stay in a shell's
history. Whoever has the right one is let in at once, whatever others try: a limit on tries would
let anybody lock everybody out, because behind a proxy all visitors have one address. What keeps a
guesser out is the length of the password; wrong ones are answered late, so that guessing does not
keep the machine busy, and only a few are kept waiting at a time, so that waiting does not either.
"""

import binascii
import os
import time
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from threading import BoundedSemaphore

from optimizer.errors import UsageError

VARIABLE = "TRIFRONT_PASSWORD"

_LEAST_BYTES = 12  # 2 ** 60 random ones: out of reach at any rate that a network carries
_DELAY_S = 1.0
_MOST_WAITING = 8  # threads that wait with the answer to a wrong password
_LENGTHS = f"at least {_LEAST_BYTES} bytes; `openssl rand -base64 18` makes a good one"


def password_from(environment: Mapping[str, str], file: Path | None) -> bytes | None:
    """Read the password from a file, or from the environment; None where neither has one.

    One line break at the end of a file does not belong to it.

    Raises:
        UsageError: The file cannot be read, or the password is too short.
    """
    if file is None:
        text = environment.get(VARIABLE)
        if text is None:
            return None
        return _long_enough(os.fsencode(text), source=VARIABLE)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file}: {error.strerror}", hint="name a file that holds the password alone"
        ) from error
    return _long_enough(content.removesuffix(b"\n").removesuffix(b"\r"), source=str(file))


class Doorkeeper:
    """Compares passwords; safe to use from several threads."""

    def __init__(self, password: bytes, *, delay_s: float = _DELAY_S) -> None:
        self._digest = sha256(password).digest()
        self._delay_s = delay_s
        self._waiting = BoundedSemaphore(_MOST_WAITING)

    def admits(self, authorization: str | None) -> bool:
        """Tell whether an ``Authorization`` header has the password; any user name will do.

        A wrong one is told late, as long as few others wait. The comparison takes as long
        whatever is wrong, and however long it is.
        """
        if authorization is None:
            return False
        given = _password_in(authorization)
        if given is not None and compare_digest(sha256(given).digest(), self._digest):
            return True
        if self._waiting.acquire(blocking=False):
            try:
                time.sleep(self._delay_s)
            finally:
                self._waiting.release()
        return False


def _password_in(authorization: str) -> bytes | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return None
    _, colon, password = decoded.partition(b":")
    return password if colon else None


def _long_enough(password: bytes, *, source: str) -> bytes:
    if len(password) < _LEAST_BYTES:
        raise UsageError(f"the password in {source} is too short", hint=_LENGTHS)
    return password
