"""The dashboard in headless Chromium, over a study of the shipped fake space."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import IN_A_BROWSER, PATIENCE_MS, command, keep

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PASSWORD = "correct horse battery"

pytestmark = IN_A_BROWSER


@contextmanager
def dashboard(workspace: Path, *options: str, password: str | None = None) -> Iterator[str]:
    """Run ``trifront dashboard`` and give the page's address."""
    secret = {} if password is None else {"TRIFRONT_PASSWORD": password}
    process = subprocess.Popen(
        command("dashboard", "--port", "0", "-w", str(workspace), *options),
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | secret,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("dashboard at "), line
        yield line.split()[2].rstrip(",")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def address(fake_workspace: Path) -> Iterator[str]:
    with dashboard(fake_workspace) as url:
        yield url


@pytest.fixture
def page(browser: "Browser", address: str) -> "Iterator[Page]":
    assert address
    context = browser.new_context(viewport={"width": 1440, "height": 1600})
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


@contextmanager
def visitor(browser: "Browser", password: str | None) -> "Iterator[Page]":
    """Open a browser that knows a password, or none."""
    credentials = None if password is None else {"username": "anybody", "password": password}
    context = browser.new_context(http_credentials=credentials)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    try:
        yield context.new_page()
    finally:
        context.close()


def opens(page: "Page", url: str) -> bool:
    """Tell whether a visitor is let in; Chromium shows a refusal as an answer or as an error."""
    from playwright.sync_api import Error

    try:
        answer = page.goto(url)
    except Error as error:
        if "ERR_INVALID_AUTH_CREDENTIALS" not in str(error):
            raise
        return False
    assert answer is not None
    assert answer.ok or answer.status == 401
    return answer.ok


def test_study_shows_our_front_in_two_and_three_dimensions(page: "Page", address: str) -> None:
    page.goto(f"{address}studies/1")

    plane = page.locator('[id="user-defined-plot:front-2d"]')
    plane.locator("svg.main-svg").first.wait_for()
    page.locator('[id="user-defined-plot:front-3d"] canvas').first.wait_for()

    assert plane.locator(".errorbar").count() > 0
    assert "95 % intervals" in (plane.text_content() or "")
    assert "p99 latency [ms], lower is better" in (plane.text_content() or "")
    keep(page, "study")


def test_page_works_under_our_policy_without_a_complaint(page: "Page", address: str) -> None:
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))

    for view in ("", "/trials", "/analytics", "/smartSelection", "/note"):
        page.goto(f"{address}studies/1{view}")
        page.get_by_text("fake (id=1)").first.wait_for()
        page.wait_for_load_state("networkidle")
        keep(page, f"view{view.replace('/', '-')}")

    assert complaints == []


def test_trial_shows_its_note_and_its_histogram(page: "Page", address: str) -> None:
    page.goto(f"{address}studies/1/trials")
    page.get_by_text("Best Trial").first.click()

    pictures = page.locator('img[src^="/artifacts/1/"]')
    pictures.first.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.images].filter(one => one.src.includes('/artifacts/'))"
        ".every(one => one.complete && one.naturalWidth > 0)"
    )

    assert pictures.count() == 2  # one in the note, one among the artifacts
    assert page.get_by_text("measured, with 95 % intervals").count() == 1
    assert page.get_by_role("cell", name="p99 latency [ms]").count() == 1
    keep(page, "trial")


def test_only_feasible_trials_are_best(page: "Page", address: str) -> None:
    page.goto(f"{address}studies/1/trials")
    page.get_by_text("Best Trial").first.wait_for()

    detail = page.request.get(f"{address.removesuffix('dashboard/')}api/studies/1").json()

    misses = [
        trial["number"]
        for trial in detail["best_trials"]
        if any(bound > 0 for bound in trial["constraints"])
    ]
    assert detail["best_trials"]
    assert misses == []


def test_study_has_a_note_with_the_front_as_a_table(page: "Page", address: str) -> None:
    page.goto(f"{address}studies/1/note")

    page.get_by_role("columnheader", name="throughput [samples/s]").first.wait_for()

    assert page.get_by_text("Of all the ways to deploy this model, which one?").count() == 1
    keep(page, "note")


def test_delete_is_refused_and_the_page_says_why(page: "Page", address: str) -> None:
    page.goto(address)
    page.get_by_text("fake").first.wait_for()

    refused = page.evaluate(
        "async () => { const answer = await fetch('/api/studies/1', {method: 'DELETE'});"
        " return [answer.status, (await answer.json()).reason]; }"
    )

    assert refused == [
        405,
        "this dashboard only looks; a study is changed by trifront itself",
    ]
    page.goto(f"{address}studies/1")
    page.get_by_text("fake (id=1)").first.wait_for()
    keep(page, "list")


def test_note_can_be_written_where_it_is_allowed(
    browser: "Browser", fake_workspace: Path, tmp_path: Path
) -> None:
    shutil.copytree(fake_workspace, tmp_path / "own")
    with dashboard(tmp_path / "own", "--allow-writes") as url, browser.new_page() as page:
        page.goto(f"{url}studies/1/note")
        page.get_by_role("columnheader", name="throughput [samples/s]").first.wait_for()
        page.locator('button:has(svg[data-testid="EditIcon"])').first.click()
        page.locator("textarea").first.fill("# Ship trial 7")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("heading", name="Ship trial 7").wait_for()

        page.reload()

        page.get_by_role("heading", name="Ship trial 7").wait_for()


def test_wrong_password_is_refused_and_the_right_one_opens(
    browser: "Browser", fake_workspace: Path
) -> None:
    with dashboard(fake_workspace, password=PASSWORD) as url:
        for given in (None, "wrong horse battery"):
            with visitor(browser, given) as page:
                assert not opens(page, f"{url}studies/1")
        with visitor(browser, PASSWORD) as page:
            assert opens(page, f"{url}studies/1")
            page.locator('[id="user-defined-plot:front-2d"] svg').first.wait_for()
