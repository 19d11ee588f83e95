"""The laws of the architecture: who may import whom, and who may ask what time it is."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = Path(find_spec("flask_ailimit").origin).parent
WEB = {"flask", "werkzeug", "flask_limiter", "limits"}
STANDARD = sys.stdlib_module_names

ROOMS = [
    ["cli.py"],
    ["cli_batch.py"],
    ["cli_changes.py"],
    ["cli_export.py", "cli_upstreams.py"],
    ["cli_subjects.py"],
    ["cli_payers.py"],
    ["cli_limiters.py"],
    ["cli_plan_files.py"],
    ["extension.py"],
    ["app_upstream.py"],
    ["observe/"],
    ["request/"],
    ["app_state.py"],
    ["secret.py", "durable.py"],
    ["limits/"],
    ["signals.py", "config.py"],
    ["http/"],
    ["upstream/", "fake_provider/"],
    ["money/"],
    ["tokens/", "headers/"],
    ["engine/"],
]
"""From the top down. A room imports those below it, and none beside or above it."""

GROUND = {"__init__.py", "code_places.py", "current.py", "unlimited.py"}
"""Files that import nothing of the package but what is in here, so that every room may import them."""

APART = {"testing.py"}
"""What only tests import."""

KNOW_FLASK_LIMITER = {
    "app_state.py",
    "extension.py",
    "http/errors.py",
    "request/charges.py",
    "request/decide.py",
    "request/endpoint_limits.py",
    "request/which_limits.py",
}
"""Files outside of the limits room that use Flask-Limiter's public names."""

KNOW_LIMITS = {"limits/misconfigured.py", "limits/rate_limiter.py", "limits/resolve.py", "limits/unit_limit.py"}


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


@cache
def trees():
    """The package's files with their trees."""
    return [(name_of(path), ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(PACKAGE.rglob("*.py"))]


def sources(*folders):
    """Those of some folders, or all."""
    return [(name, tree) for name, tree in trees() if not folders or name.startswith(folders)]


def imported(name, tree):
    """Every module that a file imports, anywhere in it; relative ones by their full name."""
    package = ["flask_ailimit", *name.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            # What is imported may be a module itself, as in ``from . import directory``.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def importers_of(wanted):
    return {name for name, tree in sources() if any(wanted(module) for module in imported(name, tree))}


def root(module):
    return module.partition(".")[0]


@pytest.mark.parametrize("folder", ["engine/", "tokens/", "money/", "headers/", "upstream/"])
def test_core_imports_no_web_framework(folder):
    found = {(name, module) for name, tree in sources(folder) for module in imported(name, tree) if root(module) in WEB}
    assert not found


def test_no_file_imports_the_sdk_of_a_provider():
    """An SDK takes up to two seconds to import, and 86 MB."""
    assert not importers_of(lambda module: root(module) in {"openai", "anthropic"})


@pytest.mark.parametrize("file", ["http/responses.py", "http/problems.py", "request/streaming.py"])
def test_pure_parts_of_the_extension_import_no_web_framework(file):
    (tree,) = [tree for name, tree in sources(file)]
    assert WEB.isdisjoint(map(root, imported(file, tree)))


def imports_of_files():
    """For each file of the package the other ones that it imports anywhere, also for type checkers only."""
    files = {module_of(name): name for name, _ in sources()}
    edges = {}
    for name, tree in sources():
        edges[name] = {files[module] for module in imported(name, tree) if module in files}
        if module_of(name) in files:
            edges[name] -= {name}
    return edges


def module_of(name):
    return ".".join(["flask_ailimit", *name.removesuffix(".py").removesuffix("__init__").strip("/").split("/")]).strip(
        "."
    )


def test_no_files_import_each_other_in_a_circle():
    edges = imports_of_files()
    # Each package's __init__ gathers the names of its files, and Python runs it before any of them.
    edges = {name: {each for each in to if not each.endswith("__init__.py")} for name, to in edges.items()}
    while edges:
        leaves = {name for name, to in edges.items() if not to & edges.keys()}
        assert leaves, f"in a circle, or above one: {sorted(edges)}"
        edges = {name: to for name, to in edges.items() if name not in leaves}


def room_of(name):
    return next((floor for floor, rooms in enumerate(ROOMS) for room in rooms if name.startswith(room)), None)


def test_every_file_has_a_room():
    assert {name for name, _ in sources() if room_of(name) is None} == GROUND | APART


def test_rooms_import_only_what_is_below_them():
    for name, to in imports_of_files().items():
        for other in to - GROUND - APART:
            if name not in GROUND and name not in APART and name.partition("/")[0] != other.partition("/")[0]:
                assert room_of(name) < room_of(other), (name, other)


def test_only_tests_import_the_provider_that_fails():
    importers = importers_of(lambda module: module.startswith("flask_ailimit.fake_provider"))
    assert {name for name in importers if not name.startswith("fake_provider/")} == APART


def test_provider_that_fails_needs_only_the_standard_library_and_the_rooms_below_it():
    for name, tree in sources("fake_provider/"):
        for module in imported(name, tree):
            assert root(module) in STANDARD | {"flask_ailimit"}, (name, module)


def test_what_every_room_may_import_imports_nothing_of_them():
    edges = imports_of_files()
    assert all(edges[name] <= GROUND for name in GROUND - {"__init__.py"})


def test_engine_imports_nothing_of_the_package_around_it():
    for name, tree in sources("engine/"):
        ours = [module for module in imported(name, tree) if root(module) == "flask_ailimit"]
        assert all(module.startswith("flask_ailimit.engine") for module in ours), name


def test_tokens_and_headers_import_only_the_engine_and_themselves():
    for folder in ("tokens", "headers"):
        for name, tree in sources(f"{folder}/"):
            for module in imported(name, tree):
                if root(module) == "flask_ailimit":
                    assert module.startswith(("flask_ailimit.engine", f"flask_ailimit.{folder}")), (name, module)


def test_money_imports_only_the_engine_the_tokens_and_itself():
    for name, tree in sources("money/"):
        for module in imported(name, tree):
            if root(module) == "flask_ailimit":
                assert module.startswith(tuple(f"flask_ailimit.{room}" for room in ("engine", "tokens", "money"))), name


def test_algorithms_import_only_the_standard_library_and_constants():
    """An algorithm is a pure function of (state, now, quota, cost)."""
    ours = tuple(f"flask_ailimit.engine.{name}" for name in ("algorithms", "clock", "grant", "quota"))
    impure = {"time", "datetime", "random", "secrets", "threading", "socket", "os", "logging", "asyncio", "io"}
    for name, tree in sources("engine/algorithms/"):
        for module in imported(name, tree):
            assert module.startswith(ours) or root(module) in STANDARD - impure, (name, module)
            assert module != "flask_ailimit.engine.clock.system_clock", name


def test_only_the_clock_asks_the_machine_for_the_wall_time():
    asked = {
        (name, node.attr)
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"time_ns", "utcnow", "today", "gettimeofday"}
    }
    assert asked == {("engine/clock.py", "time_ns")}
    # "now" and "time" are names of other things too, so these are looked for by their module.
    assert importers_of(lambda module: root(module) == "time") == {"engine/clock.py"}
    calls = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "now" and ast.unparse(node.value).endswith("datetime")
    }
    assert not calls


def test_only_these_files_know_flask_limiter():
    found = importers_of(lambda module: root(module) == "flask_limiter")
    assert {name for name in found if not name.startswith("limits/")} == KNOW_FLASK_LIMITER


def test_only_the_limits_room_knows_flask_limiters_internals():
    private = importers_of(lambda module: module.startswith("flask_limiter._"))
    assert private
    assert all(name.startswith("limits/") for name in private)


def test_private_names_of_other_objects_are_excused_in_the_limits_room_only():
    """What pyproject.toml excuses from SLF001 is what this test knows of; the rest is ruff's to find."""
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    excused = settings["tool"]["ruff"]["lint"]["per-file-ignores"]
    files = [files for files, rules in excused.items() if "SLF001" in rules and not files.startswith("tests/")]
    assert files == ["flask_ailimit/limits/{flask_limiter_access,registry,view_limit}.py"]
    mangled = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and str(node.value).startswith("_Limiter__")
    }
    assert mangled == {"limits/flask_limiter_access.py"}


def test_only_these_files_know_limits():
    assert importers_of(lambda module: root(module) == "limits") == KNOW_LIMITS


def test_every_law_sees_the_files_it_speaks_of():
    """A moved folder would make the tests above pass on nothing."""
    names = {name for name, _ in sources()}
    expected = {"engine/clock.py", "engine/algorithms/token_bucket.py", "tokens/__init__.py", "headers/ietf.py"}
    assert expected | GROUND | APART <= names
    assert all(any(name.startswith(room) for name in names) for rooms in ROOMS for room in rooms)


def without(modules, code):
    """Run code in a process of its own, in which these modules can't be imported."""
    blocked = f"import sys\nfor name in {sorted(modules)!r}:\n    sys.modules[name] = None\n"
    paths = f"sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
    command = [sys.executable, "-W", "error", "-c", blocked + paths + code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_engine_tokens_and_headers_work_where_there_is_no_flask():
    code = """
from flask_ailimit.engine import Charge, Engine, Quota, open_store, system_clock
import flask_ailimit
from flask_ailimit import Decision, Usage
from flask_ailimit.headers import limit_headers
from flask_ailimit.money import parse_money
import flask_ailimit.http.responses, flask_ailimit.request.streaming

engine = Engine(open_store("memory://", name="worker", clock=system_clock, options={}))
reservation = engine.reserve([Charge(engine.subject("user-1"), Quota(10, 60, "tokens"), 4)])
assert isinstance(reservation.decision, Decision)
print(dict(limit_headers(reservation.decision, ["openai"]))["x-ratelimit-remaining-tokens"], Usage(1, 2).of("tokens"))
print(parse_money("5 USD").nano)
"""
    ran = without(WEB, code)
    assert (ran.stdout.split(), ran.stderr) == (["6", "3", "5000000000"], "")


def test_extension_without_flask_says_what_is_missing():
    """The control: the modules are really blocked."""
    ran = without(WEB, "from flask_ailimit import AILimiter")
    assert "ModuleNotFoundError" in ran.stderr
    assert "flask" in ran.stderr.splitlines()[-1]


def test_another_flask_limiter_is_refused_by_name_and_with_the_fix():
    code = """
import flask_limiter
del flask_limiter.Limiter._Limiter__evaluate_limits
import flask_ailimit.extension
"""
    ran = without(set(), code)
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("ImportError: flask_ailimit needs Flask-Limiter 4.1; ")
    assert 'pip install "flask-limiter>=4.1,<4.2"' in last
