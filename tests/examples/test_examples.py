"""Each program of examples/ runs, against the demo under gunicorn or a provider that fails, and shows what it says."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from example_runs import KEY, PATIENCE, ROOT, environ_of, run, serving

from demo_app.keys import PUBLISHED
from demo_app.smollm2 import SmolLM2
from flask_ailimit.testing import FakeProvider, Fault

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
TEXT = "All good things come in threes."
WHERE = "provider"
"""Not an example, but where all of them find a model."""

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


@pytest.fixture
def demo(running):
    running.calls()  # What was before is another test's.
    return running


@pytest.fixture
def provider():
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("AILIMIT_STORES_DIRECTORY", str(tmp_path))


def statuses(demo):
    return [call["status"] for call in demo.calls()]


def against(provider, name, *arguments, **environ):
    return run(name, provider.anthropic_url, *arguments, **environ)


def test_call_is_sent_again_until_it_is_answered(demo, provider):
    assert run("retries", demo.url) == ([TEXT], "")
    assert statuses(demo) == [200]

    provider.then(Fault.overloaded(), Fault.throttled(retry_after_ms=400))
    lines, _ = against(provider, "retries")
    assert lines[:2] == ["attempt 1 failed with status 503", "attempt 2 failed with status 429"]
    assert re.fullmatch(r"waited \d\.\d s because calls were paused", lines[2])
    assert lines[3:] == ["Name three colours."]
    assert [call.status for call in provider.calls] == [503, 429, 200]
    _, throttled, last = provider.calls
    assert last.at_us - throttled.at_us >= 400_000


def test_decorators_of_tenacity_and_stamina_retry_as_told(demo, provider):
    assert run("with_tenacity", demo.url) == ([f"tenacity: {TEXT}", f"stamina: {TEXT}"], "")
    assert statuses(demo) == [200, 200]

    provider.then(
        Fault.throttled(retry_after_ms=400), Fault.overloaded(), Fault.ok(), Fault.throttled(retry_after_ms=1)
    )
    lines, _ = against(provider, "with_tenacity")
    assert lines == ["tenacity: Name three colours.", "stamina: Hello."]
    assert [call.status for call in provider.calls] == [429, 503, 200, 429, 200]
    assert provider.calls[1].at_us - provider.calls[0].at_us >= 400_000


def test_errors_of_the_demo_are_told_by_kind(demo):
    assert run("errors_by_kind", demo.url).lines == [
        "a good call: answered",
        "a long prompt: too long: send less",
        "an unknown model: not in plan: change the request",
        "a wrong key: credential: tell whoever has the account",
    ]
    assert statuses(demo) == [200, 400, 404, 401]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault.throttled(retry_after=2), "throttled: try again in 2.0 s"),
        (Fault.spent(), "spent: tell whoever has the account"),
        (Fault.too_large(), "never fits: send less"),
        (Fault.error(500), "overloaded: try again in 1 s"),
        (Fault.dropped(), "uncertain: it may be done and billed; ask again if that does no harm"),
    ],
    ids=repr,
)
def test_errors_of_a_provider_are_told_by_kind(provider, fault, told):
    provider.then(fault)
    assert against(provider, "errors_by_kind").lines[0] == f"a good call: {told}"


def test_calls_are_paced(demo):
    lines, errors = run("pacing", demo.url)
    seconds = [float(line.split()[0]) for line in lines]
    assert (len(seconds), errors) == (8, "")
    calls = demo.calls()
    assert [(call["path"], call["status"]) for call in calls] == [("/v1/messages", 200)] * 8
    # Two at once, and then five a second.
    assert seconds[-1] >= 1.2
    assert calls[-1]["at"] - calls[0]["at"] >= 1.1


def test_workers_share_the_queue_and_the_limits(demo):
    lines, errors = run("queue_and_workers", demo.url)
    said = [re.fullmatch(r"worker [123]: (Is \d+ even\?) (.*)", line).groups() for line in lines]
    assert sorted(said) == sorted((f"Is {number} even?", TEXT) for number in range(12))
    assert errors == ""
    calls = demo.calls()
    assert [call["status"] for call in calls] == [200] * 12
    # Two at once, and then ten a second, of all three together.
    assert calls[-1]["at"] - calls[0]["at"] >= 0.9


def test_two_hundred_emails_are_classified_without_a_429(demo):
    lines, errors = run("classify_emails", demo.url, "6000 per minute")
    assert lines == ["Counter({'fine': 200})"]
    assert re.fullmatch(r"200 of 200, [\d.]+ a second, \d+ tokens\n", errors)
    assert statuses(demo) == [200] * 200


def test_breaker_opens_and_one_call_closes_it(provider):
    provider.then(*[Fault.error(500)] * 10)
    lines, _ = against(provider, "circuit_breaker", "30")
    opened, half_open = lines.index("the breaker is open"), lines.index("the breaker is half-open")
    closed = lines.index("the breaker is closed")
    assert opened < half_open < closed
    assert lines[:opened] == ["500 None"] * 10
    assert set(lines[opened + 1 : half_open]) == {"503 upstream_open"}
    assert set(lines[half_open + 1 : closed]) == {"answered"} == set(lines[closed + 1 :])
    assert provider.count(500) == 10
    assert provider.count() == lines.count("answered") + 10 < 30


def test_breaker_stays_closed_while_all_is_well(demo):
    assert run("circuit_breaker", demo.url, "3") == (["answered"] * 3, "")
    assert statuses(demo) == [200] * 3


def test_small_model_answers_what_the_large_one_has_no_room_for(demo):
    assert run("fallbacks", demo.url) == ([f"{name}: {TEXT}" for name in ("large", "large", "small", "small")], "")
    assert [call["model"] for call in demo.calls()] == ["scripted"] * 2 + ["small-scripted"] * 2


def test_another_provider_answers_what_the_first_one_fails(demo, provider):
    provider.always(Fault.error(500))
    lines, _ = against(provider, "fallbacks", SPARE_BASE_URL=f"{demo.url}/v1")
    assert lines == [f"small: {TEXT}"] * 4
    assert [call["model"] for call in demo.calls()] == ["small-scripted"] * 4
    assert provider.count(500) == 2  # Its limit has no room for more.


def test_same_question_is_asked_once(demo):
    lines, errors = run("cached_answers", demo.url)
    said = [re.fullmatch(r"(cache|provider), [\d.]+ s: (.*)", line).groups() for line in lines]
    assert said == [(source, TEXT) for source in ("provider", "cache", "provider")]
    assert errors == ""
    assert statuses(demo) == [200, 200]


def test_calls_are_logged_and_a_wrong_key_is_an_alarm(demo):
    _, errors = run("log_and_alert", demo.url)
    assert re.match(r"INFO openai-main: scripted used 6 tokens in \d+\.\d\d s\n", errors)
    assert [line for line in errors.splitlines() if "ALERT" in line] == ["CRITICAL ALERT openai-main: credential"]
    assert statuses(demo) == [200, 401]


def test_spent_money_is_an_alarm_and_no_second_call_is_made(provider):
    provider.always(Fault.spent())
    _, errors = against(provider, "log_and_alert")
    assert "CRITICAL ALERT openai-main: spent" in errors
    assert provider.count() == 1


def test_no_example_shows_the_key(demo):
    for name in ("errors_by_kind", "log_and_alert"):
        ran = run(name, demo.url)
        assert KEY not in "".join(ran.lines) + ran.errors


def test_faulty_provider_serves_the_other_examples():
    command = [sys.executable, "examples/faulty_provider.py"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ_of("http://unused"), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            for_openai, for_anthropic = process.stdout.readline(), process.stdout.readline()
            url = re.match(r"export OPENAI_BASE_URL=(\S+)/v1 OPENAI_API_KEY=", for_openai)[1]
            assert for_anthropic.startswith(f"export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY=")
            met = Counter(run("circuit_breaker", url, "12").lines)
        finally:
            process.terminate()
            process.wait(PATIENCE)
    assert 0 < met["answered"] < 12


def test_each_example_is_tested_and_stands_in_the_table():
    tests = {node.value for node in ast.walk(ast.parse(Path(__file__).read_text())) if isinstance(node, ast.Constant)}
    shown = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \|", (ROOT / "examples/README.md").read_text(), re.MULTILINE)
    programs = [name for name in EXAMPLES if name != WHERE]
    assert sorted(shown) == programs
    assert [name for name in programs if name not in tests and f"examples/{name}.py" not in tests] == []


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != WHERE])
def test_docstring_says_how_to_run_it(name):
    assert f"python examples/{name}.py" in ast.get_docstring(ast.parse((ROOT / f"examples/{name}.py").read_text()))


def test_examples_ask_the_demo_with_its_key_unless_the_environment_says_where():
    code = "from examples.provider import *; print(URL, KEY, ANTHROPIC_URL, ANTHROPIC_KEY, MODEL)"
    environ = environ_of("http://unused")
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "MODEL"):
        del environ[name]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    key, demo = PUBLISHED["large"], "http://127.0.0.1:8000"
    assert ran.stdout.split() == [f"{demo}/v1", key, demo, key, SmolLM2.name]
