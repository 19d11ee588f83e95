"""Plans are read from a file or a dictionary, and what is wrong in them is said in a sentence."""

import re
import tomllib
import warnings
from random import Random

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit import UNLIMITED, AILimiter, ConfigurationError
from flask_ailimit.limits.plans.plan_file import read_plans

SAMPLE = """
default_plan = "free"

[plans.free]
requests = "10 per minute; 200 per day"
tokens = "20000 per minute"
concurrency = 2
models = ["small-*"]

[plans.pro]
requests = { limit = "500 per minute", name = "calls", in_headers = false }
input_tokens = "200000 per minute"
output_tokens = { limit = "40000 per minute", burst = 80000, algorithm = "token-bucket" }
concurrency = { limit = 20, lease = 30 }
units = { pages = { limit = "100 per day", cost = 2 }, images = "9 per day" }

[plans.pro.models]
"large-preview" = false
"large-*" = { tokens = "30000 per minute" }
"small-*" = true

[service]
concurrency = 64
"""


SERVED = """
[plans.free]
requests = '1 per day'
[service]
requests = '9 per day'
"""


def read(text, folder):
    (folder / "plans.toml").write_text(text, encoding="utf-8")
    return read_plans("plans.toml", str(folder), "fixed-window")


def refusal(text, folder):
    with pytest.raises(ConfigurationError) as raised:
        read(text, folder)
    return str(raised.value)


def test_file_and_dictionary_give_the_same_plans(tmp_path):
    of_file = read(SAMPLE, tmp_path)
    of_dictionary = read_plans(tomllib.loads(SAMPLE), "", "fixed-window")
    assert of_file._replace(source="") == of_dictionary._replace(source="")
    assert [*of_file.plans] == ["free", "pro"]
    assert of_file.default is of_file.plans["free"]
    pro = of_file.plans["pro"]
    assert [limit.unit for limit in pro.limits] == [
        *("requests", "input_tokens", "output_tokens", "concurrency", "pages", "images")
    ]
    assert (pro.limits[0].name, pro.limits[0].in_headers, pro.limits[2].burst) == ("calls", False, 80000)
    assert (pro.limits[3].lease, pro.limits[4].cost) == (30, 2)
    assert [(rule.pattern, rule.is_allowed, len(rule.limits)) for rule in pro.models] == [
        *(("large-preview", False, 0), ("large-*", True, 1), ("small-*", True, 0))
    ]
    assert (of_file.plans["free"].has_others, pro.has_others) == (False, True)
    assert of_file.service.limits[0].value == 64


def test_class_is_the_plan_of_the_service_with_a_floor(tmp_path):
    text = f"""{SERVED}
    models = {{ "large-*" = {{ tokens = "9 per day" }} }}
    classes = {{ interactive = 0, batch = 50, all = 100 }}
    [plans.b]
    class = "batch"
    requests = "1 per day"
    """
    plans = read(text, tmp_path)
    assert {name: plan.floor for name, plan in plans.classes.items()} == {"interactive": 0, "batch": 50, "all": 100}
    assert {(plan.limits, plan.models) for plan in plans.classes.values()} == {
        (plans.service.limits, plans.service.models)
    }
    assert len({plan.key for plan in plans.classes.values()}) == 3
    assert [plan.service_class for plan in plans.plans.values()] == [None, "batch"]
    assert read(SAMPLE, tmp_path).classes == {}


def test_no_limit_and_nothing_can_be_written():
    plans = read_plans({"plans": {"a": {"requests": "unlimited", "tokens": 0, "concurrency": 0}}}, "", "fixed-window")
    requests, tokens, concurrency = plans.plans["a"].limits
    assert (requests.value, tokens.value, concurrency.value) == (UNLIMITED, "0 per second", 0)
    assert read_plans({"plans": {"a": {"tokens": "unlimited"}}}, "", "fixed-window").default is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "plans.toml: it has no plan."),
        ("[plans]", "plans.toml: it has no plan."),
        ("plans = 7", "plans.toml: plans: a table is needed. Got 7."),
        ("[plans]\nfree = '10 per minute'", "plans.toml: plans.free: a table is needed. Got '10 per minute'."),
        ("[plan.free]", "plans.toml: plan: there is no such key. Did you mean plans? Allowed are plans, service"),
        (
            "[plans.free]\ntoken = '9 per day'",
            (
                "plans.toml: plans.free.token: there is no such key. Did you mean tokens? Allowed are requests, "
                "tokens, input_tokens, output_tokens, concurrency, budget, units, models, enforced_percent, "
                "soft_percent, calendar, weights, unknown_price, class."
            ),
        ),
        ("[plans.free]\nrequests = 5", "plans.toml: plans.free.requests: a text is needed, such as '10 per minute'"),
        ("[plans.free]\nrequests = true", "plans.toml: plans.free.requests: a text is needed"),
        ("[plans.free]\nrequests = ''", "plans.toml: plans.free.requests: limit: can't read ''."),
        ("[plans.free]\ntokens = '9 per fortnight'", "plans.toml: plans.free.tokens: limit: can't read"),
        (
            "[plans.free]\nconcurrency = '4'",
            "plans.toml: plans.free.concurrency: a number of calls in flight is needed",
        ),
        (
            "[plans.free]\nconcurrency = true",
            "plans.toml: plans.free.concurrency: a number of calls in flight is needed",
        ),
        ("[plans.free]\nconcurrency = 20000", "plans.toml: plans.free.concurrency: limit: at most 10000"),
        ("[plans.free]\nconcurrency = { limit = 3, lease = 1 }", "plans.toml: plans.free.concurrency: lease: a whole"),
        (
            "[plans.free]\nconcurrency = { limit = 3, burst = 9 }",
            "plans.toml: plans.free.concurrency.burst: there is no",
        ),
        ("[plans.free]\nrequests = { burst = 3 }", "plans.toml: plans.free.requests: the table has no limit."),
        ("[plans.free]\ntokens = { limit = '9 per day', burst = 0 }", "plans.toml: plans.free.tokens: burst: a whole"),
        ("[plans.free]\ntokens = { limit = '9 per day', burst = [] }", "plans.toml: plans.free.tokens: burst: a whole"),
        (
            "[plans.free]\ntokens = { limit = '9 per day', brust = 3 }",
            "tokens.brust: there is no such key. Did you mean",
        ),
        (
            "[plans.free]\ntokens = { limit = '9 per day', name = 'a b' }",
            "plans.toml: plans.free.tokens: name: 1 to 64",
        ),
        ("[plans.free]\ntokens = { limit = '9 per day', in_headers = 1 }", "plans.free.tokens: in_headers: True or"),
        ("[plans.free]\ntokens = { limit = '9 per day', algorithm = 'x' }", "plans.free.tokens: algorithm: use one of"),
        (
            "[plans.free]\nrequests = { limit = '9 per day', burst = 12, algorithm = 'fixed-window' }",
            "plans.toml: plans.free.requests: burst: only the token-bucket",
        ),
        ("[plans.free.units]\nPages = '1 per day'", "plans.toml: plans.free.units.Pages: unit: a name of your own"),
        ("[plans.free.units]\ntokens = '1 per day'", "plans.toml: plans.free.units.tokens: unit: a name of your own"),
        ("[plans.free.units]\npages = { limit = '1 per day', cost = 5 }", "units.pages: cost: 5 never fits"),
        ("[plans.free.units]\npages = { limit = '1 per day', cost = -1 }", "units.pages: cost: a whole number"),
        ("[plans.free]", "plans.toml: plans.free: it has no limit. Write one of requests, tokens"),
        ("[plans.free]\nmodels = ['a']", "plans.toml: plans.free: it has no limit."),
        ("[plans.free]\nunits = {}", "plans.toml: plans.free: it has no limit."),
        ("[plans.free]\nrequests = '1 per day'\nmodels = []", "plans.toml: plans.free.models: a list of patterns"),
        ("[plans.free]\nrequests = '1 per day'\nmodels = 'a'", "plans.toml: plans.free.models: a list of patterns"),
        ("[plans.free]\nrequests = '1 per day'\nmodels = [7]", "plans.toml: plans.free.models: a pattern is a text"),
        ("[plans.free]\nrequests = '1 per day'\nmodels = ['']", "plans.toml: plans.free.models: a pattern is a text"),
        ("[plans.free]\nrequests = '1 per day'\nmodels = ['*', 'a-*']", 'models."a-*": it never matches'),
        ("[plans.free]\nrequests = '1 per day'\nmodels = ['a', 'a']", "models.a: it never matches"),
        ("[plans.free.models]\na = 7", "plans.toml: plans.free.models.a: a table of limits, true or false is needed."),
        ("[plans.free.models.a]", "plans.toml: plans.free.models.a: it has no limit."),
        ("[plans.free.models.a]\nmodels = ['b']", "plans.toml: plans.free.models.a.models: there is no such key."),
        ("[plans.'two words']\nrequests = '1 per day'", 'plans.toml: plans."two words": name: 1 to 64 letters'),
        ("[plans.'']\nrequests = '1 per day'", 'plans.toml: plans."": name: 1 to 64 letters'),
        (
            "default_plan = 'fre'\n[plans.free]\nrequests = '1 per day'",
            "plans.toml: default_plan: there is no plan 'fre'.",
        ),
        ("default_plan = 'fre'\n[plans.free]\nrequests = '1 per day'", "Did you mean free? The plans are free."),
        ("[service]\n[plans.free]\nrequests = '1 per day'", "plans.toml: service: it has no limit."),
        (
            "[service]\nrequest = 3\n[plans.a]\nrequests = '1 per day'",
            "plans.toml: service.request: there is no such key.",
        ),
        (
            "[plans.free]\nrequests = '1 per day'\nrequests = '2 per day'",
            "plans.toml: it can't be read as TOML: Cannot",
        ),
        (f"{SERVED}[service.classes]\n", "plans.toml: service.classes: it has no class. Write one with its floor"),
        (f"{SERVED}classes = ['batch']\n", "plans.toml: service.classes: a table is needed. Got a list."),
        (
            f"{SERVED}classes = {{ 'two words' = 5 }}\n",
            'plans.toml: service.classes."two words": name: 1 to 64 letters',
        ),
        (
            f"{SERVED}classes = {{ tokens = 5 }}\n",
            "service.classes.tokens: it is no name of a class, but a key of [service].",
        ),
        (f"{SERVED}classes = {{ a = 101 }}\n", "service.classes.a: a whole number of percent from 0 to 100 is needed."),
        (f"{SERVED}classes = {{ a = -1 }}\n", "service.classes.a: a whole number of percent from 0 to 100 is needed."),
        (f"{SERVED}classes = {{ a = 0.5 }}\n", "service.classes.a: a whole number of percent from 0 to 100 is needed."),
        (
            f"{SERVED}classes = {{ a = true }}\n",
            "service.classes.a: a whole number of percent from 0 to 100 is needed.",
        ),
        (f"{SERVED}classes = {{ a = '50 %' }}\n", "service.classes.a: a whole number of percent from 0 to 100 is"),
        (
            f"{SERVED}class = 'batch'\n",
            "plans.toml: service.class: there is no such key. Did you mean classes? Allowed",
        ),
        (
            f"{SERVED}classes = {{ batch = 50, bulk = 9 }}\n[plans.b]\nclass = 'bach'\nrequests = '1 per day'",
            (
                "plans.toml: plans.b.class: there is no class 'bach'. Did you mean batch? "
                "[service.classes] has batch, bulk."
            ),
        ),
        (
            f"{SERVED}[plans.b]\nclass = 'batch'\nrequests = '1 per day'",
            "plans.toml: plans.b.class: there is no class 'batch'. [service.classes] has none.",
        ),
        (
            f"{SERVED}classes.a = 5\n[plans.b]\nclass = ['a']\nrequests = '1 per day'",
            "b.class: the name of a class is needed. Got a list.",
        ),
        ("[plans.a]\nrequests = '1 per day'\n[service.classes]\na = 5", "plans.toml: service: it has no limit."),
        (
            "[plans.a]\nrequests = '1 per day'\n[service]\ntokens = 'unlimited'\nclasses.a = 5",
            "plans.toml: service.classes: service has only 'unlimited', and nothing to leave to others.",
        ),
        (
            f"{SERVED}classes.a = 5\n[plans.a.classes]\nb = 5",
            "plans.a.classes: there is no such key. Did you mean class",
        ),
        ("[plans.free]\nrequests = 1 per day", "(at line 2, column 14)."),
        ("a = " + "[" * 5000, "plans.toml: it can't be read as TOML: it is nested too deep."),
        ("a = " + "9" * 5000, "plans.toml: it can't be read as TOML: "),
    ],
)
def test_mistake_is_said_with_its_place_and_its_fix(text, sentence, tmp_path):
    assert sentence in refusal(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("plans = {}", "plans"),
        ("default_plan = {}", "default_plan"),
        ("[plans.a]\nrequests = {}", "plans.a.requests"),
        ("[plans.a]\nconcurrency = {{ limit = 1, lease = {} }}", "plans.a.concurrency.lease"),
        ('[plans.a]\nrequests = {{ limit = "1 per day", burst = {} }}', "plans.a.requests.burst"),
        ('[plans.a.units]\npages = {{ limit = "1 per day", cost = {} }}', "plans.a.units.pages.cost"),
        ("[plans.a]\nmodels = [{}]", "plans.a.models"),
        ("[plans.a.models]\nx = {}", "plans.a.models.x"),
        (f"{SERVED}classes.a = {{}}", "service.classes.a"),
    ],
)
def test_number_that_python_can_t_write_is_said_to_be_too_large(text, place, tmp_path):
    said = refusal(text.format("0x1" + "0" * 5000), tmp_path)
    assert said.startswith(f"plans.toml: {place}: ")
    assert "a number of more than 100 digits" in said


def test_file_that_is_missing_or_not_a_text_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere.toml can't be read: No such file or directory.$"):
        read_plans("nowhere.toml", str(tmp_path), "fixed-window")
    with pytest.raises(ConfigurationError, match=r"can't be read: Is a directory.$"):
        read_plans(".", str(tmp_path), "fixed-window")
    (tmp_path / "plans.toml").write_bytes(b"# \xff")
    with pytest.raises(ConfigurationError, match=r"^plans.toml: it is not written in UTF-8 \(at byte 2\).$"):
        read_plans(tmp_path / "plans.toml", "/", "fixed-window")


@pytest.mark.parametrize("given", [7, "", True, [], b"plans.toml"], ids=repr)
def test_setting_is_a_path_or_a_dictionary(given):
    with pytest.raises(ConfigurationError, match=r"^plans: the path of a TOML file is needed"):
        read_plans(given, "", "fixed-window")


@pytest.mark.parametrize("given", [{5: {}}, {"plans": {5: {"requests": "1 per day"}}}, {"plans": {"a": {None: 1}}}])
def test_key_of_a_dictionary_is_a_text(given):
    with pytest.raises(ConfigurationError, match="each key is a text"):
        read_plans(given, "", "fixed-window")


def test_path_is_relative_to_the_app_and_a_mistake_stops_its_start(tmp_path):
    (tmp_path / "plans.toml").write_text("[plans.free]\ntoken = 'x'", encoding="utf-8")
    app = Flask("shop", root_path=str(tmp_path), static_folder=None)
    with pytest.raises(ConfigurationError, match=r"^plans.toml: plans.free.token: there is no such key"):
        AILimiter(app=app, plans="plans.toml", storage_uri="memory://")
    (tmp_path / "plans.toml").write_text(SAMPLE, encoding="utf-8-sig")  # As editors of Windows write it.
    app.config["AILIMIT_PLANS"] = "plans.toml"
    limiter = AILimiter(app=app, storage_uri="memory://")
    assert limiter.app_state.plans.source == "plans.toml"


def test_plan_below_the_output_that_is_reserved_is_refused_if_the_app_says_how_much():
    plans = {"plans": {"free": {"tokens": "500 per minute"}}}
    with pytest.raises(ConfigurationError, match=r"default_output_tokens: 500 is all that '500 tokens per 60 s'"):
        AILimiter(app=Flask("shop"), plans=plans, default_output_tokens=500, storage_uri="memory://")


def test_changed_dictionary_changes_no_plan():
    given = {"plans": {"a": {"requests": "5 per day", "models": ["x"]}}}
    plans = read_plans(given, "", "fixed-window")
    given["plans"]["a"]["models"].append("y")
    given["plans"]["a"]["requests"] = "9 per day"
    assert [rule.pattern for rule in plans.plans["a"].models] == ["x"]
    assert plans.plans["a"].limits[0].value == "5 per day"


KEYS = [
    *("plans", "service", "default_plan", "requests", "tokens", "output_tokens", "concurrency", "units", "models"),
    *("class", "classes"),
    *(
        "limit",
        "burst",
        "algorithm",
        "lease",
        "name",
        "in_headers",
        "soft_percent",
        "cost",
        "free",
        "pro",
        "*",
        "a-*",
        "pages",
        "",
        "ä",
    ),
]
LEAVES = st.one_of(
    st.sampled_from(["10 per minute", "0 per day", "unlimited", "free", "*", "token-bucket", "fixed-window", "x\n"]),
    st.integers(-2, 2**64),
    st.booleans(),
    st.none(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)),
    max_leaves=25,
)
TABLES = st.dictionaries(st.sampled_from(KEYS[3:11]), ANYTHING, max_size=4)


def require_plans_or_a_sentence(given, folder=""):
    """Read them, and open an app with what could be read."""
    wrong = ""
    try:
        read_plans(given, folder, "fixed-window")
    except ConfigurationError as error:
        wrong = str(error)
    if wrong:
        assert re.fullmatch(r"plans(\.toml)?: .{10,2000}\.", wrong), wrong
        return False
    app = Flask("fuzzed", root_path=folder or "/", static_folder=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # A burst far above its limit.
        AILimiter(app=app, plans=given, storage_uri="memory://").engine.close()
    return True


@given(st.one_of(ANYTHING, st.fixed_dictionaries({"plans": st.dictionaries(st.sampled_from(["a", "b"]), TABLES)})))
def test_whatever_a_dictionary_holds_there_are_plans_or_a_sentence(given):
    require_plans_or_a_sentence(given)


def test_whatever_a_file_holds_there_are_plans_or_a_sentence(tmp_path):
    """The sample with bits of it taken out, doubled, moved or replaced."""
    random, read, signs = Random(12), 0, "\"'[]{}=.,*\\\n\t \x000aä5-#"
    for _ in range(2000):
        text = SAMPLE
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(len(text))
            end = at + random.choice((0, 1, 1, 2, 30))
            put = random.choice(("", random.choice(signs), text[at:end] * 2, random.choice(SAMPLE.splitlines())))
            text = text[:at] + put + text[end:]
        (tmp_path / "plans.toml").write_text(text, encoding="utf-8")
        read += require_plans_or_a_sentence("plans.toml", str(tmp_path))
    assert 20 < read < 1900
