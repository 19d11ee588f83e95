"""``docs/reference.md`` is what ``make reference`` writes."""

import importlib

import pytest
import reference_page

if not reference_page.PAGE.parent.exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)

WRITTEN = reference_page.PAGE.read_text(encoding="utf-8")


def test_page_is_the_one_that_the_code_makes():
    assert reference_page.page() == WRITTEN, "run make reference"


@pytest.mark.parametrize("module", reference_page.MODULES)
def test_every_public_name_is_on_the_page(module):
    section = WRITTEN.partition(f"\n## {module}\n")[2].partition("\n## ")[0]
    headings = [line.removeprefix("### ").rpartition(".")[2] for line in section.splitlines() if line[:4] == "### "]
    assert sorted(headings) == sorted(importlib.import_module(module).__all__)


def test_every_method_of_the_limiter_is_on_the_page():
    loaded = importlib.import_module("flask_ailimit").AILimiter
    flask_limiter_s = importlib.import_module("flask_limiter").Limiter
    own = {
        name
        for name in dir(loaded)
        if not name.startswith("_") and getattr(loaded, name) is not getattr(flask_limiter_s, name, None)
    }
    section = WRITTEN.partition("\n### AILimiter\n")[2].partition("\n### ")[0]
    listed = {
        line.removeprefix("- `").partition("(")[0].partition(":")[0]
        for line in section.splitlines()
        if line[:3] == "- `"
    }
    assert listed == own - set(reference_page.NOT_FOR_APPS["AILimiter"])


def test_names_in_the_tables_are_there():
    for module_and_name in reference_page.EXPLAINED:
        module = next(
            each
            for each in sorted(reference_page.MODULES, key=len, reverse=True)
            if module_and_name.startswith(f"{each}.")
        )
        thing = importlib.import_module(module)
        for part in module_and_name.removeprefix(f"{module}.").split("."):
            thing = getattr(thing, part)
    homes = [importlib.import_module(module) for module in reference_page.MODULES]
    for name, members in reference_page.NOT_FOR_APPS.items():
        owner = next(getattr(home, name) for home in homes if name in home.__all__)
        assert set(members) <= set(dir(owner))


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("One thing. Another.", "One thing."),
        ("Reads\nit, such as ``a.b``. ``c`` too.\n\nMore.", "Reads it, such as `a.b`."),
        ("See :class:`~flask_ailimit.engine.Store` for it", "See `Store` for it."),
        ("Sent with\n\n- this", "Sent with."),
    ],
)
def test_first_sentence_is_taken(docstring, sentence):
    assert reference_page.first_sentence(docstring) == sentence
