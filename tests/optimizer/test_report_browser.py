"""The report in headless Chromium: interactive with a script, whole without one."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import IN_A_BROWSER, PATIENCE_MS, keep

from optimizer.api import open_study

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = IN_A_BROWSER
LAPTOP, PHONE = {"width": 1366, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(fake_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "fake.html"
    return open_study(workspace=fake_workspace).report(path).as_uri()


@pytest.fixture(params=[LAPTOP, PHONE], ids=["laptop", "phone"])
def page(browser: "Browser", request: pytest.FixtureRequest) -> "Iterator[Page]":
    context = browser.new_context(viewport=request.param, offline=True)
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    opened.on("pageerror", lambda error: pytest.fail(f"the page's script broke: {error}"))
    yield opened
    context.close()


def rows(page: "Page") -> int:
    return page.locator("#candidates tbody tr:visible").count()


def test_front_is_drawn_and_nothing_sticks_out(page: "Page", report: str) -> None:
    page.goto(report)

    page.locator("#plot .scatterlayer").wait_for()
    width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    keep(page, f"report-{page.evaluate('window.innerWidth')}")
    assert width <= 0
    assert page.locator("#plot .point").count() > 5
    images = page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth)")
    assert images


def test_other_objectives_are_picked(page: "Page", report: str) -> None:
    page.goto(report)

    page.locator("#x").select_option("engine_size_mb")

    page.get_by_text("engine size [MB], lower is better").wait_for()


def test_box_picks_rows_of_the_table(browser: "Browser", report: str) -> None:
    with browser.new_context(viewport={"width": 1366, "height": 900}) as context:
        page = context.new_page()
        page.goto(report)
        page.locator("#plot .scatterlayer").wait_for()
        every = rows(page)

        box = page.locator("#plot .nsewdrag").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 5, box["y"] + 5)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 5, steps=5)
        page.mouse.up()

        page.get_by_text("of the table picked").wait_for()
        assert 0 < rows(page) < every


def test_table_is_sorted_by_its_headings(page: "Page", report: str) -> None:
    page.goto(report)

    page.locator("#candidates th").nth(0).click()

    first = page.locator("#candidates tbody tr td:first-child").all_inner_texts()
    numbers = [int(text.split()[0]) for text in first]
    assert numbers == sorted(numbers)


def test_without_a_script_the_tables_say_the_same(browser: "Browser", report: str) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()

        page.goto(report)

        assert page.get_by_text("Without a script the front is the table below.").is_visible()
        assert not page.locator("#interactive").is_visible()
        assert rows(page) > 5
