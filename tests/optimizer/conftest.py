import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import CHROMIUM, TRIALS, command
from search_fakes import SPACE

from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    """Two variants, five axes, one rule; 80 deployments."""
    file = tmp_path / "tiny.yaml"
    file.write_text(SPACE, encoding="utf-8")
    return space_from_yaml(file)


@pytest.fixture(scope="session")
def fake_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Search the shipped fake space; nobody writes to it afterwards."""
    folder = tmp_path_factory.mktemp("place") / "trifront"
    searching = ("search", "fake", "--trials", TRIALS, "--sampler", "random", "--mlflow", "none")
    subprocess.run(command(*searching, "-w", str(folder)), check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Start headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
