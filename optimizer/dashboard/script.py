"""The page's script, with one fault mended, as it is and compressed."""

import gzip
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

# The contour page pairs values with the parameters of other trials as soon as one trial has no
# values (every failed one): it counts those with values, but looks up in all. Code of 0.21.
CONTOUR_FAULT = b"const s=hb(a,r),l=hb(a,n),"
_CONTOUR_MEND = b"const s=hb(o,r),l=hb(o,n),"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script to be served.

    Attributes:
        tag: Differs where the content does, quotes included, as HTTP wants it.
    """

    plain: bytes
    zipped: bytes
    tag: str


def mended_script() -> Script:
    """Read the script of the installed optuna-dashboard and mend it."""
    from optuna_dashboard._app import STATIC_DIR

    plain = (Path(STATIC_DIR) / "bundle.js").read_bytes().replace(CONTOUR_FAULT, _CONTOUR_MEND)
    return Script(
        plain=plain,
        zipped=gzip.compress(plain, compresslevel=6, mtime=0),
        tag=f'"{sha256(plain).hexdigest()[:16]}"',
    )
