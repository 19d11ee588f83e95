"""Token counting knows nothing of Flask, and of the engine only its words."""

import ast
import sys
from pathlib import Path

import pytest

import flask_ailimit.tokens

FOLDER = Path(flask_ailimit.tokens.__file__).parent
ALLOWED = {
    "flask_ailimit.engine.errors": {"ConfigurationError"},
    "flask_ailimit.engine.quota": {"INPUT_TOKENS", "MAX_EXACT", "OUTPUT_TOKENS", "TOKENS", "require_own_unit"},
}


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_only_the_standard_library_and_the_engines_words_are_imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = {alias.name for alias in node.names}
            assert node.module.split(".")[0] in sys.stdlib_module_names or names <= ALLOWED[node.module]


def test_public_names_are_sorted_and_there():
    names = flask_ailimit.tokens.__all__
    assert sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name)) == names
    assert all(hasattr(flask_ailimit.tokens, name) for name in names)
