"""The demo's README names every environment variable and every file."""

import re
from pathlib import Path

from demo_app import keys

DEMO = Path(__file__).parents[2] / "demo_app"
README = (DEMO / "README.md").read_text(encoding="utf-8")


def test_every_environment_variable_is_documented_with_its_default():
    code = "\n".join(file.read_text(encoding="utf-8") for file in DEMO.glob("*.py"))
    read = dict(re.findall(r'environ\.get\("(\w+)"(?:, (.+?))?\)', code))
    defaults = {name: default_of(default) for name, default in read.items()}
    assert len(defaults) == code.count('environ.get("DEMO_')
    assert dict(re.findall(r"^\| `(DEMO_\w+)` \| `([^`]+)` \|", README, re.MULTILINE)) == defaults


def default_of(written):
    """The value of a default as the code spells it."""
    if account := re.fullmatch(r'PUBLISHED\["(\w+)"\]', written):
        return keys.PUBLISHED[account[1]]
    return written.strip('"') or "none"


def test_every_file_is_named():
    linked = set(re.findall(r"\]\((\w+\.py)\)", README))
    assert linked == {file.name for file in DEMO.glob("*.py")} - {"__init__.py"}
