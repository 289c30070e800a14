"""The tutorial is followed word by word, and whoever follows it says where it goes wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
from untraced import untraced

SCRIPT = Path(__file__).parents[2] / "scripts" / "follow_tutorial.py"


def follow(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=untraced(),
        check=False,
    )


def followed(folder: Path, tutorial: str) -> subprocess.CompletedProcess[str]:
    path = folder / "page.md"
    path.write_text(tutorial, encoding="utf-8")
    return follow("--tutorial", str(path), "--folder", str(folder / "empty"))


@pytest.mark.slow
@pytest.mark.timeout(900)  # one to two minutes; five on a machine that others keep busy
def test_tutorial_leads_from_a_model_to_a_verified_export(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the tutorial begins with a PyTorch model")

    ran = follow("--folder", str(tmp_path / "empty"), timeout_s=850)

    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert (tmp_path / "empty" / "deploy" / "manifest.json").is_file()


def test_blocks_are_written_run_and_compared_in_order(tmp_path: Path) -> None:
    page = (
        "```python words.py\nprint('good morning')\n```\n"
        "```sh\nexport NAME=Ada\n```\n"
        "```sh\npython words.py && echo $NAME\n```\n"
        "```text\ngood morning\n…\n```\n"
    )

    ran = followed(tmp_path, page)

    assert ran.returncode == 0, ran.stderr
    assert "good morning\nAda\n" in ran.stdout
    assert "4 blocks followed" in ran.stdout


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("```sh\nfalse\necho on\n```", "page.md, line 3: this sh block ended with code 1"),
        ("```sh until-ctrl-c\ntrue\n```", "this sh block ended before it spoke of Ctrl-C"),
        ("```text\nwhat nobody printed\n```", "was not printed by the commands before: nobody"),
        ("```ruby\nputs 1\n```", "this ruby block begins with an unknown fence"),
    ],
)
def test_block_that_goes_wrong_is_named_with_its_line(
    tmp_path: Path, block: str, says: str
) -> None:
    ran = followed(tmp_path, f"# Page\n\n{block}\n")

    assert ran.returncode == 1
    assert says in ran.stderr


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()

    ran = follow("--folder", str(tmp_path))

    assert ran.returncode == 1
    assert "is not empty" in ran.stderr
