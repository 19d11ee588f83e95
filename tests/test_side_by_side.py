"""Tests in several processes: none is lost, and no failure is."""

import pytest
from side_by_side import ROOT, outcome_of, parts_of, run, run_all

PASSES = "def test_passes():\n    assert True\n"
FAILS = "def test_fails():\n    assert 'the reason' == ''\n"
SKIPPED = "import pytest\n\n@pytest.mark.skip\ndef test_is_skipped():\n    pass\n"
SKIPPED_WHOLE = "import pytest\n\npytest.skip('not here', allow_module_level=True)\n"
BROKEN = "import nothing_of_this_name\n"
ENDS = "import os\n\ndef test_ends_the_process():\n    os._exit(0)\n\ndef test_passes():\n    pass\n"
KILLED = "import os, signal\n\ndef test_kills():\n    os.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    """They take most of the time of these runs."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def parts(tmp_path):
    """Makes parts of one file each, of their sources."""

    def make(*sources):
        files = [tmp_path / f"test_{number}.py" for number in range(len(sources))]
        for file, source in zip(files, sources, strict=True):
            file.write_text(source)
        return {file.name: [file] for file in files}

    return make


def run_parts(parts, *options):
    return run_all(parts, ["-c", "/dev/null", *options], lanes=2)


def test_every_file_of_tests_is_in_one_part():
    files = [file for part in parts_of(ROOT / "tests").values() for file in part]
    assert sorted(files) == sorted((ROOT / "tests").rglob("test_*.py"))


def test_file_is_in_the_part_of_the_first_pattern_that_fits_or_in_that_of_its_folder(tmp_path):
    for name in ("a/test_x.py", "a/test_y.py", "b/test_x.py", "b/c/test_z.py", "test_top.py", "a/other.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    parts = parts_of(tmp_path, ["a/test_y*.py", "a/*.py"])
    assert {part: [file.relative_to(tmp_path).as_posix() for file in files] for part, files in parts.items()} == {
        "a/test_y*.py": ["a/test_y.py"],
        "a/*.py": ["a/test_x.py"],
        "b/*.py": ["b/test_x.py"],
        "b/c/*.py": ["b/c/test_z.py"],
        "./*.py": ["test_top.py"],
    }


def test_pattern_without_a_file_is_an_error(tmp_path):
    (tmp_path / "test_x.py").touch()
    with pytest.raises(ValueError, match=r"gone/\*"):
        parts_of(tmp_path, ["gone/*"])


def test_run_passes_if_every_test_passes_or_is_skipped(parts, capsys):
    assert run_parts(parts(PASSES, SKIPPED, PASSES + SKIPPED, SKIPPED_WHOLE))
    said = capsys.readouterr().out
    assert "FAILED" not in said
    assert " 3 skipped, 2 passed in " in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (FAILS, "assert 'the reason' == ''"),
        (PASSES + FAILS, "assert 'the reason' == ''"),
        (BROKEN, "No module named 'nothing_of_this_name'"),
        (ENDS, "test_0.py ended with 0 before it told a result"),
        (KILLED, "test_0.py ended with -9 before it told a result"),
    ],
    ids=["fails", "fails beside one that passes", "can't be imported", "ends the process", "is killed"],
)
def test_run_fails_and_shows_it_at_the_end_if_a_test(source, shown, parts, capsys):
    assert not run_parts(parts(source, PASSES))
    said = capsys.readouterr().out
    told = said.rindex(" s  test_")
    assert shown in said[told:]
    assert "FAILED: test_0.py" in said.splitlines()[-2]


def test_part_of_which_no_test_is_selected_passes(parts, capsys):
    assert run_parts(parts(PASSES, PASSES + SKIPPED), "-k", "is_skipped")
    assert " 2 deselected, 1 skipped in " in capsys.readouterr().out.splitlines()[-1]


def test_part_that_has_lost_a_test_fails():
    ended = "==== 2 passed, 1 skipped in 0.10s ===="
    assert outcome_of(0, f"collected 3 items\n\n{ended}\n").problem == ""
    assert outcome_of(0, f"collected 5 items / 2 deselected / 3 selected\n\n{ended}\n").problem == ""
    assert outcome_of(0, f"collected 4 items\n\n{ended}\n").problem == "1 of its tests have no result"


def test_order_within_a_part_is_that_of_its_files(parts):
    ordered = [file for files in parts(PASSES, PASSES, PASSES).values() for file in files]
    _, returned, output = run(ordered[::-1], ["-c", "/dev/null", "-v"])
    assert returned == 0
    assert output.index("test_2.py::") < output.index("test_1.py::") < output.index("test_0.py::")
