"""The page about testing against faults: its tests are run as its reader would run them."""

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


def test_tests_of_the_page_pass(tmp_path):
    page = texts("docs/testing-against-faults.md", "python")
    files = {found[1]: text for text in page if (found := FILE.match(text))}
    assert list(files) == ["conftest.py", "summaries.py", "test_summaries.py"]
    for name, code in files.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", tmp_path],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "10 passed" in ran.stdout
