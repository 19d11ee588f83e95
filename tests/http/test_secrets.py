"""No key, prompt, answer or secret is found in logs, stores, headers, error bodies, reprs, or on a terminal."""

import logging
from pathlib import Path

import pytest
from flask import Response, abort, request
from limited_apps import fill, limited

from flask_ailimit import AILimiter, api_key
from flask_ailimit.cli import cli

KEY = "sk-canary-key-7f3a9b"
PROMPT = "canary-prompt-51c0"
ANSWER = "canary-answer-e8d2"
SECRET = "canary-secret-0d4e-of-32-bytes-00"
CANARIES = (KEY, PROMPT, ANSWER, SECRET)
BODY = {"prompt": f"{PROMPT} and more", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 40}


def counting(text):
    """A counter that trips over one text, and says it."""
    if text.endswith("trip"):
        raise ValueError(f"can't count {text}")
    return len(text.split())


def served(storage_uri="memory://", **options):
    limits = limited(storage_uri=storage_uri, secret=SECRET, token_counter=counting, **options)

    def plan():
        if request.headers.get("x-plan"):
            raise KeyError(api_key())
        return "1000 per day"

    def failing():
        return {}[api_key()] if request.headers.get("x-key-fails") else api_key()

    @limits.app.post("/<how>", endpoint="answer")
    @limits.limiter.limit("30 per day")
    @limits.limiter.limit("10 per day", key_func=failing, scope="failing")
    @limits.limiter.limit("1000 per day", cost=lambda: int(request.json["prompt"]), scope="cost")
    @limits.limiter.limit_tokens(plan)
    @limits.limiter.limit_tokens("100 per hour", estimate=lambda request: {}[request.json["prompt"]])
    @limits.limiter.limit_tokens("100 per minute", unit="output_tokens")
    @limits.limiter.limit_concurrency(2)
    def answer(how):
        if how == "abort":
            abort(400)
        if how == "raise":
            raise RuntimeError("the app's own")
        if how == "stream":
            return Response(iter([ANSWER, " ", ANSWER]), mimetype="text/plain")
        if how == "trip":
            return f"{ANSWER} trip"
        return {"text": ANSWER}

    return limits


WAYS = ["json", "stream", "abort", "raise", "trip"]


def use(limits):
    """Send requests of every kind, until refused and beyond; answer what came back."""
    client = limits.client(KEY)
    answers = []
    for way in WAYS:
        answers.append(client.post(f"/{way}", json=BODY, buffered=True))
        limits.limiter.engine.reset()
    answers += [client.post("/json", json=BODY) for _ in range(5)]
    answers.append(client.post("/json", json=BODY | {"max_tokens": 5000}))
    answers.append(client.post("/json", data=f'{{"prompt": "{PROMPT}', content_type="application/json"))
    answers.append(client.post("/json", json=BODY, headers={"x-api-key": f"{KEY}2"}))
    answers.append(client.post("/json", json=BODY, headers={"X-Request-Id": f"{PROMPT}\t{KEY}"}))
    answers.append(client.post("/json", json=BODY, headers={"x-key-fails": "1"}))
    answers.append(client.options("/json"))
    answers.append(client.get("/json"))
    limits.clock.advance(86400)
    answers.append(client.post("/json", json=BODY))
    return answers


def assert_clean(text):
    text = text if isinstance(text, bytes) else text.encode()
    assert [canary for canary in CANARIES if canary.encode() in text] == []


@pytest.fixture
def logs(caplog):
    """Everything that anybody logs."""
    caplog.set_level(logging.DEBUG)
    for name in ("flask_ailimit", "flask-limiter", "limits", "werkzeug"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def test_nothing_of_a_client_is_logged_or_sent_back_in_an_error(logs):
    limits = served()
    answers = use(limits)
    statuses = {answer.status_code for answer in answers}
    assert {200, 400, 405, 413, 429, 500, 503} <= statuses  # The canaries were really used.
    assert "exceeded at endpoint" in logs.text
    assert "raised KeyError" in logs.text
    assert "could not be counted" in logs.text
    # The app's own log has the traceback of its own error.
    ours = [record for record in logs.records if record.name != "limited"]
    assert_clean("\n".join(logs.handler.format(record) for record in ours))
    for answer in answers:
        assert_clean(str(answer.headers))
        if answer.status_code >= 400:
            assert_clean(answer.data)


def test_failing_plan_is_told_in_the_log_by_its_type_alone(logs):
    limits = served()
    assert limits.client(KEY).post("/json", json=BODY, headers={"x-plan": "1"}).status_code == 503
    ours = [record for record in logs.records if record.name != "limited"]
    assert_clean("\n".join(logs.handler.format(record) for record in ours))


def test_memory_store_holds_hashes_only():
    limits = served()
    use(limits)
    store = limits.limiter.engine.store
    assert store._records
    assert_clean(repr(store._records))
    assert_clean(repr(store))


def test_files_of_the_local_store_hold_hashes_only(tmp_path):
    limits = served(f"local://{tmp_path}/limits", storage_options={"map_size": 1 << 20})
    use(limits)
    limits.limiter.engine.close()
    files = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert "data.mdb" in {path.name for path in files}
    assert sum(path.stat().st_size for path in files) > 8192
    for path in files:
        assert_clean(path.read_bytes())
        assert_clean(path.name)


def test_the_same_key_has_another_hash_under_another_secret(tmp_path):
    """So a copied store tells nobody whose key it was."""
    subjects = []
    for number in range(3):
        options = {"secret": f"{SECRET}{number}"} if number < 2 else {}
        limits = limited(storage_uri=f"local://{tmp_path}/{number}", **options)
        subjects.append(limits.limiter.subject(KEY))
        limits.limiter.engine.close()
    assert len(set(subjects)) == 3
    assert all(len(subject) == 16 for subject in subjects)


@pytest.mark.parametrize("policy", ["deny", "allow"])
def test_nothing_of_a_client_is_told_when_the_store_fails(tmp_path, logs, policy):
    options = {"map_size": 1 << 20}
    limits = served(f"local://{tmp_path}/limits", storage_options=options, on_store_error=policy)
    fill(limits.limiter)
    answer = limits.client(KEY).post("/json", json=BODY)
    assert answer.status_code == (503 if policy == "deny" else 200)
    if policy == "deny":
        assert_clean(answer.data)
        assert str(tmp_path) not in answer.text
    assert "map_size" in logs.text
    ours = [record for record in logs.records if record.name != "limited"]
    assert_clean("\n".join(logs.handler.format(record) for record in ours))


COMMANDS = [["config"], ["limits"], ["usage", KEY], ["forgive", KEY], ["reset", KEY], ["usage", "-"]]


@pytest.mark.parametrize("arguments", [*COMMANDS, ["usage", "--hash", KEY], ["reset", KEY, KEY]], ids="-".join)
def test_command_line_shows_no_secret_and_repeats_no_key(arguments, tmp_path):
    limits = served(f"local://{tmp_path}/limits")
    limits.client(KEY).post("/json", json=BODY)
    ran = limits.app.test_cli_runner().invoke(cli, arguments, input=KEY)
    with limits.app.app_context():
        limits.limiter.engine.close()
    assert (ran.exit_code == 0) == (arguments in COMMANDS)
    assert ran.output
    assert_clean(ran.output)


def test_reprs_show_no_secret():
    limits = served()
    with limits.app.test_request_context("/json", method="POST", json=BODY, headers={"x-api-key": KEY}):
        limits.app.preprocess_request()
        seen = [limits.limiter, limits.limiter.app_state, limits.limiter.app_state.settings, limits.limiter.engine]
        seen += [limits.limiter.ledger, limits.limiter.decision, limits.limiter.peek(), limits.limiter.current_limits]
    for each in seen:
        assert_clean(repr(each))


def test_wrong_secret_is_not_shown():
    for wrong in (KEY[:15], 7_000_000):
        with pytest.raises(ValueError, match="secret") as raised:
            AILimiter(api_key, storage_uri="memory://", secret=wrong).init_app(limited().app)
        assert str(wrong) not in str(raised.value)
