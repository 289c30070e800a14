import subprocess
import sys
from pathlib import Path

from untraced import untraced

SCRIPT = Path(__file__).parents[2] / "scripts/kill_search.py"


def test_killed_search_loses_at_most_the_running_trial_and_leaves_nothing_behind() -> None:
    """The small form of the script, which says what it looks at; ten kills take minutes."""
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--seed", "1"]

    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=110, env=untraced()
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "BAD" not in ran.stdout
    assert "finished: exit 0" in ran.stdout
