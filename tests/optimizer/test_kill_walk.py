import subprocess
import sys
from pathlib import Path

from untraced import untraced

SCRIPT = Path(__file__).parents[2] / "scripts/kill_walk.py"


def test_report_killed_at_its_steps_is_whole_the_next_time_and_costs_no_earlier_trial() -> None:
    """The small form of the script; all commands and steps take an hour."""
    command = [sys.executable, str(SCRIPT), "report", "--every", "4"]

    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=110, env=untraced()
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 kills, 0 earlier trials lost, next run: {0: 2}, wrong: nothing" in ran.stdout
