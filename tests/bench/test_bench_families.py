"""Every family of the bench runs, if only for a moment, where nothing is installed that it compares with."""

import subprocess
import sys
from pathlib import Path

import pytest
from run import FAMILIES

RUN = Path(__file__).parents[2] / "bench" / "run.py"


@pytest.fixture(scope="module")
def running():
    """All of them at once: nobody looks at the times."""
    started = {
        family: subprocess.Popen(
            [sys.executable, str(RUN), "--tiny", family], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for family in FAMILIES
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("family", FAMILIES)
def test_family_runs(family, running):
    said, wrong = running[family].communicate(timeout=500)
    assert running[family].returncode == 0, wrong
    assert FAMILIES[family] in said
    assert wrong == ""
    assert [line for line in said.splitlines() if line.startswith(("  meets", "  MISSES", "  shown"))], said
