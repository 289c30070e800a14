"""The gate in front of the dashboard: who may ask, what may be asked, and how answers are sent.

optuna-dashboard has none of this: an anonymous DELETE removes a study. Here

- without a password, the ``Host`` that a browser names must be this machine: else a page of any
  site could have its own name point to 127.0.0.1 and read everything (DNS rebinding);
- with one, nothing is answered without it;
- requests that write are refused unless they are allowed, and then only those that leave what was
  measured alone, and only from the dashboard's own page;
- no answer may be framed, sniffed, kept or read by another site.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from optimizer.dashboard.password import Doorkeeper

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

READING = ("GET", "HEAD")  # the page needs nothing else to render: all its other requests write

_MOST_BYTES = 1_000_000  # of a note; what is longer is no note
_ANYBODYS_WRITES = (
    ("PUT", re.compile(r"/api/studies/\d+(/\d+)?/note")),
    ("POST", re.compile(r"/api/studies/\d+/preference(/[^/]+)?")),
    ("DELETE", re.compile(r"/api/studies/\d+/preference/[^/]+")),
    ("PUT", re.compile(r"/api/studies/\d+/preference_feedback_component")),
    ("POST", re.compile(r"/api/studies/\d+/\d+/skip")),
    ("POST", re.compile(r"/api/trials/\d+/(tell|user-attrs)")),
    ("POST", re.compile(r"/api/studies")),
    ("DELETE", re.compile(r"/api/studies/\d+")),
)
_PAGE_POLICY = (
    # the page evaluates code that it makes (parallel coordinates on WebGL) and styles of its own
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
_ALWAYS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Server", "trifront"),  # else versions are told to everybody
)
_REPLACED = frozenset(
    (
        "access-control-allow-origin",
        "cache-control",
        "content-security-policy",
        *(name.lower() for name, _ in _ALWAYS),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not answered.

    Attributes:
        status: Of HTTP.
        reason: One line for people.
        headers: Beside the usual ones.
    """

    status: str
    reason: str
    headers: tuple[tuple[str, str], ...] = ()


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, by an address or a name that nobody can point away."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """WSGI middleware in front of the dashboard."""

    def __init__(
        self, app: "WSGIApplication", *, doorkeeper: Doorkeeper | None, allow_writes: bool
    ) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._allow_writes = allow_writes

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request, or refuse it in one line."""
        path = str(environ["PATH_INFO"])

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, _guarded(headers, path), *rest)

        refusal = self._refusal(environ)
        if refusal is None:
            return self._app(environ, start)
        body = _body(refusal, path)
        kind = "application/json" if path.startswith("/api/") else "text/plain; charset=utf-8"
        about = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start(refusal.status, [*about, *refusal.headers])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    def _refusal(self, environ: "WSGIEnvironment") -> Refusal | None:
        if self._doorkeeper is None:
            if not is_loopback(_host(environ)):
                return Refusal(
                    status="403 Forbidden",
                    reason="this dashboard answers to 127.0.0.1 and localhost alone; "
                    "with a password it answers to any name",
                )
        elif not self._doorkeeper.admits(environ.get("HTTP_AUTHORIZATION")):
            return Refusal(
                status="401 Unauthorized",
                reason="the password is missing or wrong",
                headers=(("WWW-Authenticate", 'Basic realm="trifront", charset="UTF-8"'),),
            )
        if environ["REQUEST_METHOD"] in READING:
            return None
        return self._refusal_to_write(environ)

    def _refusal_to_write(self, environ: "WSGIEnvironment") -> Refusal | None:
        if not self._allow_writes:
            return Refusal(
                status="405 Method Not Allowed",
                reason="this dashboard only looks; a study is changed by trifront itself",
                headers=(("Allow", ", ".join(READING)),),
            )
        if not _is_own_page(environ):
            return Refusal(status="403 Forbidden", reason="asked by a page of another site")
        if not _is_anybodys(environ["REQUEST_METHOD"], str(environ["PATH_INFO"]).rstrip("/")):
            return Refusal(
                status="403 Forbidden",
                reason="what was measured is changed by trifront alone; the dashboard writes "
                "notes and preferences, and makes and deletes studies",
            )
        if _length(environ) > _MOST_BYTES:
            return Refusal(status="413 Content Too Large", reason="that is too long for a note")
        return None


def _guarded(headers: list[tuple[str, str]], path: str) -> list[tuple[str, str]]:
    """Put our headers in the place of whatever the page's own server says of the same matters."""
    kept = [(name, value) for name, value in headers if name.lower() not in _REPLACED]
    is_page = path == "/dashboard" or path.startswith("/dashboard/")
    # the script is the same for as long as the server runs, and has no data in it
    keeping = "private, max-age=600" if path.startswith("/static/") else "no-store"
    policy = _PAGE_POLICY if is_page else _DATA_POLICY
    return [*kept, *_ALWAYS, ("Cache-Control", keeping), ("Content-Security-Policy", policy)]


def _body(refusal: Refusal, path: str) -> bytes:
    if path.startswith("/api/"):  # the page shows people the reason
        return json.dumps({"reason": refusal.reason}).encode() + b"\n"
    return refusal.reason.encode() + b"\n"


def _host(environ: "WSGIEnvironment") -> str:
    try:
        return urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""
    except ValueError:  # brackets that are none
        return ""


def _is_own_page(environ: "WSGIEnvironment") -> bool:
    """Tell whether a request comes from our own page, or from no page at all."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None and site != "same-origin":
        return False
    origin = environ.get("HTTP_ORIGIN")
    # scheme and port may differ where a proxy adds TLS
    return origin is None or urlsplit(origin).netloc == environ.get("HTTP_HOST")


def _is_anybodys(method: str, path: str) -> bool:
    return any(method == each and form.fullmatch(path) for each, form in _ANYBODYS_WRITES)


def _length(environ: "WSGIEnvironment") -> int:
    if "HTTP_TRANSFER_ENCODING" in environ:  # a browser says how long a note is
        return _MOST_BYTES + 1
    stated = environ.get("CONTENT_LENGTH") or "0"
    return int(stated) if stated.isdecimal() else _MOST_BYTES + 1
