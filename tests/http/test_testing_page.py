"""The page about testing: its code is run as its reader would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import texts

ROOT = Path(__file__).parents[2]
FILE = re.compile(r"# (\w+\.py)\n")

if not (ROOT / "docs").exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)


def test_the_page_s_tests_pass_and_leave_no_store_behind(tmp_path):
    home = tmp_path / "stores"
    files = [(found[1], text) for text in texts("docs/testing.md", "python") if (found := FILE.match(text))]
    assert [name for name, _ in files] == [
        "shop.py",
        "conftest.py",
        "test_shop.py",
        "test_with_freezegun.py",
        "test_in_flight.py",
    ]
    for name, code in files:
        (tmp_path / name).write_text(code, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", tmp_path],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "AILIMIT_STORES_DIRECTORY": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6 passed" in ran.stdout
    assert not home.exists()
