"""Commands run in this process, as their entry point runs them."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from typing import Any

from optimizer.cli import main


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


def trifront(*arguments: str) -> Ran:
    """Run a command."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    code: int | str | None = 0
    try:
        sys.argv = ["trifront", *arguments]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = before
    return Ran(code=int(code or 0), out=out.getvalue(), err=err.getvalue())
