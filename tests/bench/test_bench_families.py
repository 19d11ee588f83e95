"""Every family of the bench runs, if only for a moment, where nothing is installed that it compares with."""

import subprocess
import sys
from pathlib import Path

import pytest
from run import FAMILIES

RUN = Path(__file__).parents[2] / "bench" / "run.py"


@pytest.fixture(scope="module")
def running(request):
    """All that are asked for at once: nobody looks at the times."""
    asked = [item.callspec.params["family"] for item in request.session.items if item.path == request.path]
    started = {
        family: subprocess.Popen(
            [sys.executable, str(RUN), "--tiny", family], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for family in asked
    }
    yield started
    for process in started.values():
        process.communicate(timeout=500)  # If it were killed, its children would live on, and hold its output.


@pytest.mark.parametrize("family", FAMILIES)
def test_family_runs(family, running):
    said, wrong = running[family].communicate(timeout=500)
    assert running[family].returncode == 0, wrong
    assert FAMILIES[family] in said
    assert wrong == ""
    assert [line for line in said.splitlines() if line.startswith(("  meets", "  MISSES", "  shown"))], said
