"""docs/architecture.md names files, functions and tables that there are."""

import dataclasses
import re
from pathlib import Path

import pytest

from flask_ailimit.config import Settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "flask_ailimit"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:flask_ailimit|tests|[a-z_]+)/[a-z_/.]*)`", PAGE))))
def test_file_or_folder_of_the_page_is_there(name):
    assert (ROOT / name).exists() or (PACKAGE / name).exists()


@pytest.mark.parametrize(
    "name", re.findall(r"^\s+(?:\S+ +)?([a-z_]+(?:/|\.py))(?: |$)", PAGE.split("```")[1], re.MULTILINE)
)
def test_room_of_the_picture_is_there(name):
    assert (PACKAGE / name).exists()


def test_every_folder_of_the_package_is_in_the_picture():
    folders = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert {name for name in folders if name not in PAGE.split("```")[1]} == set()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_]+)`(?:,| \||$| in)", PAGE))))
def test_function_of_the_page_is_in_the_code(name):
    defined = re.compile(rf"^ *(?:def|class) {name}\b", re.MULTILINE)
    assert any(defined.search(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py"))


def test_every_algorithm_has_the_twin_that_the_page_names():
    folder = PACKAGE / "engine" / "algorithms"
    algorithms = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert {path.stem for path in folder.glob("*.lua")} >= algorithms


@pytest.mark.parametrize("setting", [field.name for field in dataclasses.fields(Settings)])
def test_setting_is_in_the_table_that_the_page_names(setting):
    assert f"| `{setting}` |" in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", re.findall(r"`([A-Z_]+)` in `(\S+)`", PAGE))
def test_table_of_the_page_is_in_its_file(row):
    table, file = row
    assert re.search(rf"^{table}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
