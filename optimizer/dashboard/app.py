"""optuna-dashboard over the studies of a storage, with our answers where its own will not do.

The page is optuna-dashboard's. These of its requests are answered here: a study and its
importances, because its own answers know no constraints and take seconds from 2,000 trials on;
artifacts, because they are made on demand; its script, because of a fault; and what it can do,
because its plots made by the server fail on trials without values.
"""

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from optuna.storages import BaseStorage

from optimizer.dashboard.artifacts import TrialArtifacts, name_from_identity
from optimizer.dashboard.details import StudyDetails
from optimizer.dashboard.script import Script, mended_script
from optimizer.dashboard.study_view import StudyView
from optimizer.errors import OptimizerError
from optimizer.study.storage import storage_errors

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_JSON = "application/json"
_JAVASCRIPT = "text/javascript; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
_ABILITIES = {
    "artifact_is_available": True,
    "llm_is_available": False,
    "plotlypy_is_available": False,
    "allow_unsafe": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    body: bytes
    content_type: str
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()


class Dashboard:
    """The WSGI application; whoever serves it to others puts a gate in front."""

    def __init__(
        self,
        storage: BaseStorage,
        artifacts: TrialArtifacts,
        *,
        url: str = "",
        allow_writes: bool = False,
    ) -> None:
        from optuna_dashboard._app import create_app

        self._view = StudyView(storage, url, allow_writes=allow_writes)
        self._url = url
        self._artifacts = artifacts
        self._details = StudyDetails(self._view, artifacts)
        self._rest: WSGIApplication = create_app(self._view)
        self._reads: tuple[
            tuple[str, Callable[[WSGIEnvironment, re.Match[str]], _Answer | None]], ...
        ] = (
            (r"/api/meta", lambda _environ, _match: _json(json.dumps(_ABILITIES).encode())),
            (r"/api/studies/(\d+)", self._study),
            (r"/api/studies/(\d+)/param_importances", self._importances),
            (r"/artifacts/(\d+)/(\d+)/([0-9a-f-]+)", self._artifact),
            (r"/artifacts/.*", lambda _environ, _match: _absent()),
            (r"/static/bundle\.js", self._bundle),
        )
        self._writes = ((r"/api/trials/(\d+)/(?:tell|user-attrs)", self._untouchable),)

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request, or pass it on to optuna-dashboard."""
        try:
            with storage_errors(self._url):
                answer = self._answer(environ)
        except OptimizerError as error:
            answer = _reason("503 Service Unavailable", str(error))
        if answer is None:
            return self._rest(environ, start_response)
        about = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
        start_response(answer.status, [*about, *answer.headers])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]

    def warm_up(self) -> None:
        """Look at the latest study before anybody asks for it, for the first look takes longest.

        What goes wrong is not told here: whoever asks will be told.
        """
        with suppress(OptimizerError, KeyError), storage_errors(self._url):
            studies = self._view.get_all_studies()
            if studies:
                self._details.study(studies[-1]._study_id, after=0)  # noqa: SLF001 - the only name

    def _answer(self, environ: "WSGIEnvironment") -> _Answer | None:
        """Answer what is ours to answer; None for what optuna-dashboard answers."""
        path = str(environ["PATH_INFO"]).rstrip("/")
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        for form, answer in self._reads if reads else self._writes:
            match = re.fullmatch(form, path)
            if match is not None:
                return answer(environ, match)
        return None

    def _study(self, environ: "WSGIEnvironment", match: re.Match[str]) -> _Answer | None:
        after = parse_qs(environ.get("QUERY_STRING", "")).get("after", ["0"])[0]
        if not after.isdecimal():
            return _reason("400 Bad Request", "`after` is the number of a trial")
        try:
            body = self._details.study(int(match[1]), after=int(after))
        except KeyError:
            return _reason("404 Not Found", f"there is no study {match[1]}")
        return None if body is None else _json(body)

    def _importances(self, _: "WSGIEnvironment", match: re.Match[str]) -> _Answer:
        try:
            return _json(self._details.importances(int(match[1])))
        except KeyError:
            return _reason("404 Not Found", f"there is no study {match[1]}")

    def _artifact(self, _: "WSGIEnvironment", match: re.Match[str]) -> _Answer:
        study_id, trial_id = int(match[1]), int(match[2])
        name = name_from_identity(match[3], trial_id)
        try:
            record = self._view.record(study_id, trial_id)
        except KeyError:
            return _absent()
        if name is None or record is None:
            return _absent()
        found = self._artifacts.artifact(record, name)
        if found is None:
            return _absent()
        # pictures too: inside the page it does not matter, and alone nothing is ever opened
        named = f'attachment; filename="trial-{record.number}-{found.name}"'
        return _Answer(
            body=found.content,
            content_type=found.content_type,
            headers=(("Content-Disposition", named),),
        )

    def _bundle(self, environ: "WSGIEnvironment", _: re.Match[str]) -> _Answer:
        script = self._script
        headers = (("ETag", script.tag), ("Vary", "Accept-Encoding"))
        if environ.get("HTTP_IF_NONE_MATCH") == script.tag:
            return _Answer(
                body=b"", content_type=_JAVASCRIPT, status="304 Not Modified", headers=headers
            )
        if "gzip" not in environ.get("HTTP_ACCEPT_ENCODING", ""):
            return _Answer(body=script.plain, content_type=_JAVASCRIPT, headers=headers)
        return _Answer(
            body=script.zipped,
            content_type=_JAVASCRIPT,
            headers=(*headers, ("Content-Encoding", "gzip")),
        )

    def _untouchable(self, _: "WSGIEnvironment", match: re.Match[str]) -> _Answer | None:
        """Refuse to write into a trial of a search: its values are measured, in another unit."""
        try:
            is_ours = self._view.is_of_search(int(match[1]))
        except KeyError:
            return _reason("404 Not Found", f"there is no trial {match[1]}")
        if not is_ours:
            return None
        return _reason("403 Forbidden", "this trial belongs to a search, which alone tells of it")

    @cached_property
    def _script(self) -> Script:
        return mended_script()


def _json(body: bytes) -> _Answer:
    return _Answer(body=body, content_type=_JSON)


def _reason(status: str, reason: str) -> _Answer:
    """Refuse so that the page shows why."""
    body = json.dumps({"reason": reason}).encode() + b"\n"
    return _Answer(body=body, content_type=_JSON, status=status)


def _absent() -> _Answer:
    body = b"there is no such file, or what it is made from is not on this machine\n"
    return _Answer(body=body, content_type=_TEXT, status="404 Not Found")
