"""Flask-Limiter's own tests, unchanged, run on its Limiter and on ours."""

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import flask_ailimit

SUITE = Path(__file__).parents[1] / "flask_limiter_suite"
TESTS_IN_SUITE = 130
IMPORT_PATH = os.pathsep.join([str(SUITE), str(Path(flask_ailimit.__file__).parents[1])])


def read_list(name: str) -> dict[str, str]:
    """Read a list of tests, each with the reason why it stands there."""
    lines = (SUITE / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the tests alone: the package that they import must be the installed one."""
    if "FLASK_LIMITER_SDIST" not in os.environ:
        pytest.skip("make test fetches Flask-Limiter's sdist and names it in FLASK_LIMITER_SDIST")
    sdist = Path(os.environ["FLASK_LIMITER_SDIST"])
    pin = re.search(r"^flask-limiter==(\S+) --hash=sha256:(\S+)$", (SUITE / "sdist.txt").read_text(), re.MULTILINE)
    assert pin
    assert importlib.metadata.version("flask-limiter") == pin[1], "install the extra flask-limiter-suite"
    assert hashlib.sha256(sdist.read_bytes()).hexdigest() == pin[2], f"{sdist} is not what sdist.txt names"
    home = tmp_path_factory.mktemp("flask_limiter")
    with tarfile.open(sdist) as archive:
        for member in archive:
            path = home / member.name.partition("/")[2]
            if member.isfile() and path.relative_to(home).parts[0] in {"tests", "pytest.ini"}:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())
    return home


def run(suite: Path, outcomes: Path, *options: str) -> dict[str, str]:
    """Run the suite in a process of its own and return each test's outcome."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "suite_outcomes", f"--outcomes={outcomes}", *options]
    # Without the suite's own options, which ask for coverage; an expected failure of the suite's counts as a failure.
    command += ["--override-ini=addopts=", "--runxfail", "--quiet", "--tb=short", "--disable-warnings"]
    finished = subprocess.run(
        command,
        cwd=suite,
        env=environment | {"PYTHONPATH": IMPORT_PATH},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    print(finished.stdout, finished.stderr)  # noqa: T201  pytest shows it when the test fails
    return json.loads(outcomes.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        pytest.param([], {}, id="Limiter"),
        pytest.param(["-p", "suite_ailimiter"], read_list("differs.txt"), id="AILimiter"),
    ],
)
def test_all_of_flask_limiters_suite_passes_but_for_the_tests_listed(suite, tmp_path, options, differs):
    needs_server = read_list("needs_server.txt")
    options = [*options, *(f"--leave-out={test}" for test in needs_server)]

    outcomes = run(suite, tmp_path / "outcomes.json", *options)

    # A listed test must really fail, or be there to be left out: a list that is out of date fails here too.
    expected = dict.fromkeys(needs_server, "left out") | dict.fromkeys(differs, "failed")
    assert outcomes == dict.fromkeys(outcomes, "passed") | expected
    assert len(outcomes) == TESTS_IN_SUITE
