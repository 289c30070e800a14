"""The gate: who may ask, what may be asked, and how answers leave."""

import sys
from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from optimizer.dashboard.gate import Gate
from optimizer.dashboard.password import Doorkeeper, password_from
from optimizer.errors import UsageError

PASSWORD = "correct horse"
NOTE = "/api/studies/1/note"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer everything, with the headers that optuna-dashboard sends with an artifact."""
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/html"),
            ("Access-Control-Allow-Origin", "*"),
            ("Content-Security-Policy", "default-src *"),
        ],
    )
    return [environ["PATH_INFO"].encode()]


def ask(gate: Gate, method: str = "GET", path: str = "/api/studies", **environ: str) -> Answer:
    seen: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        seen.append((status, headers))

    body = gate(
        {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "HTTP_HOST": "127.0.0.1:8080",
            "wsgi.errors": sys.stderr,
            "wsgi.input": BytesIO(),
            **environ,
        },
        start,
    )
    (status, headers), content = seen[0], b"".join(body)
    assert len({name.lower() for name, _ in headers}) == len(headers), "a header stands twice"
    return Answer(int(status[:3]), dict(headers), content)


def gate_of(*, password: str | None = None, allow_writes: bool = False) -> Gate:
    doorkeeper = None if password is None else Doorkeeper(password.encode(), delay_s=0)
    return Gate(page, doorkeeper=doorkeeper, allow_writes=allow_writes)


def basic(password: str, user: str = "anybody") -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_passes(method: str) -> None:
    assert ask(gate_of(), method).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_every_other_method_is_refused_in_one_line(method: str) -> None:
    answer = ask(gate_of(), method)

    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.body.count(b"\n") == 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost", "localhost:9000", "[::1]:8080", "127.0.0.2"]
)
def test_this_machine_by_any_of_its_names_is_answered(host: str) -> None:
    assert ask(gate_of(), HTTP_HOST=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "", "[::"]
)
def test_name_that_somebody_pointed_to_this_machine_is_refused(host: str) -> None:
    assert ask(gate_of(), HTTP_HOST=host).status == 403


def test_with_a_password_any_name_will_do() -> None:
    gate = gate_of(password=PASSWORD)

    answer = ask(gate, HTTP_HOST="studies.example", HTTP_AUTHORIZATION=basic(PASSWORD))

    assert answer.status == 200


@pytest.mark.parametrize("user", ["anybody", "", "trifront"])
def test_right_password_is_let_in_under_any_name(user: str) -> None:
    gate = gate_of(password=PASSWORD)

    assert ask(gate, HTTP_AUTHORIZATION=basic(PASSWORD, user)).status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        basic("wrong horse"),
        basic(PASSWORD + "x"),
        basic(PASSWORD[:-1]),
        basic(""),
        "Basic",
        "Basic !!!",
        "Basic \xff",
        f"Bearer {PASSWORD}",
        f"Basic {b64encode(PASSWORD.encode()).decode()}",
    ],
)
def test_wrong_password_is_refused_and_asked_for(authorization: str) -> None:
    answer = ask(gate_of(password=PASSWORD), HTTP_AUTHORIZATION=authorization)

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert b"/api/studies" not in answer.body


def test_nothing_at_all_is_answered_without_the_password() -> None:
    gate = gate_of(password=PASSWORD, allow_writes=True)
    paths = ("/", "/dashboard", "/static/bundle.js", "/api/meta", "/favicon.ico", NOTE)

    answers = {ask(gate, method, path).status for path in paths for method in ("GET", "PUT")}

    assert answers == {401}


def test_password_of_any_bytes_is_compared_as_it_is() -> None:
    gate = gate_of(password="päßwörter 🔑")

    assert ask(gate, HTTP_AUTHORIZATION=basic("päßwörter 🔑")).status == 200
    assert ask(gate, HTTP_AUTHORIZATION=basic("passwörter 🔑")).status == 401


def test_guessers_keep_nobody_out() -> None:
    """However many wait with wrong ones, the right password is let in without waiting."""
    doorkeeper = Doorkeeper(PASSWORD.encode(), delay_s=30.0)
    guessers = [
        Thread(target=doorkeeper.admits, args=(basic("wrong horse"),), daemon=True)
        for _ in range(20)
    ]

    for guesser in guessers:
        guesser.start()

    assert doorkeeper.admits(basic(PASSWORD))
    assert any(guesser.is_alive() for guesser in guessers)


def test_few_wrong_answers_are_kept_waiting_and_the_others_are_told_at_once() -> None:
    doorkeeper = Doorkeeper(PASSWORD.encode(), delay_s=30.0)
    waiting = [
        Thread(target=doorkeeper.admits, args=(basic("wrong horse"),), daemon=True)
        for _ in range(8)
    ]
    for thread in waiting:
        thread.start()
    while doorkeeper._waiting._value:  # until all eight wait
        pass

    assert not doorkeeper.admits(basic("another one"))

    assert all(thread.is_alive() for thread in waiting)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", NOTE),
        ("PUT", "/api/studies/1/23/note"),
        ("POST", "/api/studies/1/preference"),
        ("DELETE", "/api/studies/1/preference/ab-c"),
        ("POST", "/api/studies"),
        ("DELETE", "/api/studies/1"),
    ],
)
def test_notes_preferences_and_studies_can_be_written_where_it_is_allowed(
    method: str, path: str
) -> None:
    assert ask(gate_of(allow_writes=True), method, path).status == 200
    assert ask(gate_of(), method, path).status == 405


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/studies/1/rename"),  # would copy the translated values into a new study
        ("POST", "/api/artifacts/1/2"),
        ("DELETE", "/api/artifacts/1/2/ab"),
        ("POST", "/incompatible-rdb-schema"),
        ("POST", "/api/llm/trial_filter_query"),
        ("PATCH", NOTE),
        ("PUT", f"{NOTE}/x"),
    ],
)
def test_what_would_touch_what_was_measured_is_refused_all_the_same(
    method: str, path: str
) -> None:
    assert ask(gate_of(allow_writes=True), method, path).status == 403


@pytest.mark.parametrize(
    "foreign",
    [
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
        {"HTTP_SEC_FETCH_SITE": "none"},
        {"HTTP_ORIGIN": "https://evil.example"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": "http://127.0.0.1:9999"},
        {"HTTP_ORIGIN": "http://127.0.0.1:8080", "HTTP_SEC_FETCH_SITE": "cross-site"},
    ],
)
def test_page_of_another_site_cannot_write(foreign: dict[str, str]) -> None:
    assert ask(gate_of(allow_writes=True), "PUT", NOTE, **foreign).status == 403


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"HTTP_ORIGIN": "http://127.0.0.1:8080"},
        {"HTTP_ORIGIN": "https://127.0.0.1:8080", "HTTP_SEC_FETCH_SITE": "same-origin"},
    ],
)
def test_own_page_and_programs_can_write(own: dict[str, str]) -> None:
    assert ask(gate_of(allow_writes=True), "PUT", NOTE, **own).status == 200


@pytest.mark.parametrize(
    "length", [{"CONTENT_LENGTH": "1000001"}, {"HTTP_TRANSFER_ENCODING": "chunked"}]
)
def test_note_without_an_end_is_refused(length: dict[str, str]) -> None:
    assert ask(gate_of(allow_writes=True), "PUT", NOTE, **length).status == 413


@pytest.mark.parametrize("path", ["/dashboard", "/api/studies/1", "/artifacts/1/2/ab", "/none"])
def test_no_answer_may_be_framed_sniffed_kept_or_read_by_another_site(path: str) -> None:
    headers = ask(gate_of(), path=path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


def test_only_the_page_itself_may_run_scripts() -> None:
    policies = {
        path: ask(gate_of(), path=path).headers["Content-Security-Policy"]
        for path in ("/dashboard/studies/1", "/dashboards", "/artifacts/1/2/ab", "/csv/1")
    }

    assert [path for path, policy in policies.items() if "script-src" in policy] == [
        "/dashboard/studies/1"
    ]
    scripts = policies["/dashboard/studies/1"].partition("script-src")[2].partition(";")[0]
    assert "unsafe-inline" not in scripts


def test_password_comes_from_a_file_without_its_line_break(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b" correct horse \r\n")

    assert password_from({"TRIFRONT_PASSWORD": "of the environment"}, file) == b" correct horse "


def test_password_comes_from_the_environment_or_there_is_none() -> None:
    assert password_from({"TRIFRONT_PASSWORD": "battery staple"}, None) == b"battery staple"
    assert password_from({}, None) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"brief", b"elevenbytes"])
def test_password_that_can_be_guessed_is_refused_with_a_better_one(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)

    with pytest.raises(UsageError, match="too short") as caught:
        password_from({}, file)

    assert "openssl rand" in caught.value.hint
    assert not content.strip() or content.decode() not in str(caught.value)


def test_password_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        password_from({}, tmp_path / "none")
