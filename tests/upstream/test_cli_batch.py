"""``flask ailimit batch`` as a person types it, against a real HTTP server."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from batch_provider import APP, good, request_line, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def provider():
    with serving() as provider:
        yield provider


@pytest.fixture
def place(tmp_path, provider):
    (tmp_path / "shop.py").write_text(APP.format(url=provider.url), encoding="utf-8")
    return tmp_path


def written(place, *numbers, **body):
    (place / "in.jsonl").write_text("".join(request_line(number, **body) for number in numbers), encoding="utf-8")


def command(*options, source="in.jsonl"):
    told = ["batch", source, "-o", "out.jsonl", "--upstream", "openai-main", *options]
    return [sys.executable, "-m", "flask", "--app", "shop", "ailimit", *told]


def environment(**variables):
    return os.environ | {"PYTHONPATH": str(ROOT)} | variables


def run(place, *options, source="in.jsonl", given=None, **variables):
    return subprocess.run(
        command(*options, source=source),
        cwd=place,
        env=environment(**variables),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def started(place, *options):
    return subprocess.Popen(
        command(*options),
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ids(file):
    return [json.loads(line)["custom_id"] for line in file.read_bytes().splitlines() if line.endswith(b"}")]


def names(*numbers):
    return [f"line-{number}" for number in numbers]


def test_every_line_is_answered_in_its_order_and_the_key_is_sent_and_not_printed(place, provider):
    written(place, *range(40))
    ran = run(place, "--workers", "8")
    assert (ran.returncode, ran.stdout) == (0, "out.jsonl: 40 of 40 answered. 1200 tokens, 0.002 USD.\n")
    assert ids(place / "out.jsonl") == names(*range(40))
    first = json.loads((place / "out.jsonl").read_text().splitlines()[7])
    assert first["response"] == {"status_code": 200, "request_id": "req-7", "body": good("7")}
    assert first["error"] is None
    assert set(provider.paths) == {"/v1/chat/completions"}
    assert {each["authorization"] for each in provider.headers} == {"Bearer sk-secret"}
    assert "sk-secret" not in ran.stdout + ran.stderr
    assert re.fullmatch(r"40 of 40, [\d.]+ a second, 1200 tokens, 0.002 USD\n", ran.stderr)
    assert not (place / "out.jsonl.part").exists()


def test_killed_in_the_middle_it_goes_on_and_asks_only_for_what_was_in_flight(place, provider):
    numbers = range(30)
    written(place, *numbers)
    hold = threading.Event()

    def answer(content):
        if int(content) >= 12:
            hold.wait(60)
        return 200, good(content)

    provider.answer = answer
    process = started(place, "--workers", "4", "--no-progress")
    provider.wait_for(16)
    process.kill()
    process.communicate(timeout=60)
    assert not (place / "out.jsonl").exists()
    with (place / "out.jsonl.part").open("ab") as file:
        file.write(b'{"id": "batch_req_torn", "custom_id": "line-29", "resp')  # What a kill may leave.
    hold.set()
    before = len(provider.contents())
    ran = run(place, "--no-progress")
    assert (ran.returncode, ran.stdout) == (0, "out.jsonl: 30 of 30 answered. 900 tokens, 0.0015 USD.\n")
    assert ids(place / "out.jsonl") == names(*numbers)
    again = provider.contents()[before:]
    assert sorted(map(int, again)) == [*range(12, 30)]
    asked_twice = [each for each in provider.contents()[:before] if each in again]
    assert len(asked_twice) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_waits_for_what_runs_begins_nothing_and_goes_on(place, provider, number):
    written(place, *range(10))
    hold = threading.Event()
    provider.answer = lambda content: (hold.wait(60), (200, good(content)))[1]
    process = started(place, "--workers", "2", "--no-progress")
    provider.wait_for(2)
    process.send_signal(number)
    assert process.stderr.readline() == "The calls that run are waited for. Ctrl-C again leaves them.\n"
    hold.set()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "Interrupted. What is answered is kept, and the same command goes on.\n"
    assert sorted(provider.contents()) == ["0", "1"]
    assert sorted(ids(place / "out.jsonl.part")) == names(0, 1)
    assert run(place).returncode == 0
    assert ids(place / "out.jsonl") == names(*range(10))
    assert len(provider.contents()) == 10


def test_second_interrupt_leaves_at_once(place, provider):
    written(place, *range(4))
    hold = threading.Event()
    provider.answer = lambda content: (hold.wait(60), (200, good(content)))[1]
    process = started(place, "--workers", "2")
    provider.wait_for(2)
    process.send_signal(signal.SIGINT)
    assert "waited for" in process.stderr.readline()
    for _ in range(60):  # One that comes inside of a finalizer is not heard.
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
            break
    assert process.returncode == 130
    hold.set()
    assert run(place).returncode == 0
    assert ids(place / "out.jsonl") == names(0, 1, 2, 3)


def test_some_that_fail_are_told_and_only_those_that_may_change_are_sent_again(place, provider):
    written(place, *range(6))
    statuses = {"1": 400, "2": 503, "3": 429, "4": None}
    provider.answer = lambda content: (statuses.get(content, 200), good(content))
    ran = run(place, "--no-progress")
    assert ran.returncode == 3
    assert ran.stdout.startswith("out.jsonl: 2 of 6 answered, 4 failed (")
    told = ran.stdout.partition("(")[2].partition(")")[0].split(", ")
    assert sorted(told) == ["1 no answer", "1 with status 400", "1 with status 429", "1 with status 503"]
    *rest, last = ran.stderr.splitlines()
    assert last == "3 of them may go well another time: --retry-failed."
    assert rest == ["upstream openai-main: throttled (status 429); all calls to 'small' wait for 1.0 s."]
    assert ids(place / "out.jsonl") == names(*range(6))
    lines = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert (lines[4]["response"], lines[4]["error"]["code"]) == (None, "no_answer")
    assert lines[1]["response"]["status_code"] == 400

    assert run(place, "--no-progress").returncode == 3
    assert len(provider.contents()) == 6

    statuses.clear()
    again = run(place, "--retry-failed", "--no-progress")
    assert (again.returncode, again.stderr) == (3, "")
    assert sorted(provider.contents()[6:]) == ["2", "3", "4"]
    assert ids(place / "out.jsonl") == names(*range(6))
    assert "5 of 6 answered, 1 failed (1 with status 400)" in again.stdout


@pytest.mark.parametrize(
    ("budget", "larger", "spent"),
    [("125 tokens", "100000 tokens", "120 tokens"), ("0.00021 USD", "1 USD", "0.0002 USD")],
)
def test_budget_is_never_passed_and_what_was_spent_before_counts(place, provider, budget, larger, spent):
    """A call may use 10 tokens of input and 20 of output, and uses them."""
    written(place, *range(20))
    ran = run(place, "--budget", budget, "--workers", "3", "--no-progress")
    assert ran.returncode == 4
    assert ran.stdout.startswith("out.jsonl.part: 4 of 20 answered, 16 not sent. ")
    assert spent in ran.stdout
    assert ran.stderr == "The budget is used up. With a larger one, the same command goes on.\n"
    assert sorted(map(int, provider.contents())) == [0, 1, 2, 3]
    assert not (place / "out.jsonl").exists()

    assert run(place, "--budget", budget).returncode == 4
    assert len(provider.contents()) == 4

    assert run(place, "--budget", larger).returncode == 0
    assert ids(place / "out.jsonl") == names(*range(20))


def test_call_that_may_have_been_paid_counts_as_what_was_estimated(place, provider):
    written(place, *range(10))
    provider.answer = lambda content: (None, None)
    ran = run(place, "--budget", "100 tokens", "--workers", "1", "--no-progress")
    assert ran.returncode == 4
    assert len(provider.contents()) in (2, 3)
    assert "failed" in ran.stdout


def test_attempts_that_the_upstream_tells_of_count_in_place_of_what_the_answer_says(place, provider):
    file = place / "shop.py"
    told = """
import httpx2
from flask_ailimit.tokens import Usage
from flask_ailimit.upstream.calling import calling_now

def tell(response):
    assert calling_now().is_batch and calling_now().stop is not None
    for usage in (Usage(10, 5), Usage(10, 20)):
        calling_now().tally("openai-main", "small", usage)

of_app = type(limiter.upstreams["openai-main"])
of_app.http_client = lambda self, **options: httpx2.Client(event_hooks={"response": [tell]}, **options)
"""
    file.write_text(file.read_text() + told, encoding="utf-8")
    written(place, *range(9))
    ran = run(place, "--budget", "80 tokens", "--no-progress")
    assert ran.returncode == 4
    assert ran.stdout == "out.jsonl.part: 2 of 9 answered, 7 not sent. 90 tokens, 0.00014 USD.\n"


def test_budget_in_money_needs_a_price_for_every_line(place, provider):
    written(place, 1, 2, model="nobody-knows")
    ran = run(place, "--budget", "1 USD")
    assert ran.returncode == 2
    assert ran.stderr.startswith("Error: in.jsonl: line 1: nobody knows in the budget's currency what its model costs.")
    assert not provider.contents()


def test_bad_line_is_named_before_anything_is_sent(place, provider):
    (place / "in.jsonl").write_text(request_line(1) + "secret prompt\n" + request_line(1), encoding="utf-8")
    ran = run(place)
    assert ran.returncode == 2
    assert ran.stderr == (
        "Error: in.jsonl: line 2: The line is not JSON: column 1. Wrong too: line 3. Nothing was sent.\n"
    )
    assert not provider.contents()
    assert not (place / "out.jsonl.part").exists()


def test_requests_come_from_the_standard_input_too(place, provider):
    ran = run(place, "--no-progress", source="-", given=request_line(1) + request_line(2))
    assert ran.returncode == 0
    assert ids(place / "out.jsonl") == names(1, 2)


def test_base_url_of_the_command_comes_before_that_of_the_upstream(place, provider):
    written(place, 1)
    assert run(place, "--base-url", provider.url.removesuffix("/v1") + "/openai/v1").returncode == 0
    assert provider.paths == ["/openai/v1/chat/completions"]


def test_key_of_the_environment_is_sent_if_the_upstream_has_none(place, provider):
    file = place / "shop.py"
    file.write_text(file.read_text().replace('{"authorization": "Bearer sk-secret"}', "{}"), encoding="utf-8")
    written(place, 1)
    assert run(place, OPENAI_API_KEY="sk-of-environment").returncode == 0
    assert provider.headers[0]["authorization"] == "Bearer sk-of-environment"


def test_address_of_the_environment_is_taken_if_the_upstream_has_none(place, provider):
    file = place / "shop.py"
    file.write_text(file.read_text().replace(f"base_url={provider.url!r}, ", ""), encoding="utf-8")
    written(place, 1)
    assert run(place).returncode == 2
    assert run(place, OPENAI_BASE_URL=provider.url).returncode == 0
    assert provider.contents() == ["1"]


def test_header_without_its_environment_variable_is_told_in_one_line(place):
    (place / "plans.toml").write_text(
        '[upstreams.of-file]\nbase_url = "http://127.0.0.1:9/v1"\nheaders = {authorization = "Bearer env:NOT_SET"}\n'
        '[plans.free]\nrequests = "9 per minute"\n',
        encoding="utf-8",
    )
    file = place / "shop.py"
    file.write_text(file.read_text().replace('storage_uri="memory://"', 'storage_uri="memory://", plans="plans.toml"'))
    written(place, 1)
    ran = run(place, "--upstream", "of-file")
    told = "Error: --upstream: headers: authorization: the environment variable NOT_SET is not set.\n"
    assert (ran.returncode, ran.stderr) == (2, told)


def test_request_that_reached_nobody_was_not_sent_and_costs_nothing(place):
    written(place, 1)
    ran = run(place, "--base-url", "http://127.0.0.1:9/v1", "--budget", "1000 tokens", "--no-progress")
    assert (ran.returncode, ran.stdout) == (3, "out.jsonl: 0 of 1 answered, 1 failed (1 not sent). 0 tokens.\n")
    line = json.loads((place / "out.jsonl").read_text())
    assert (line["response"], line["error"]["code"]) == (None, "not_sent")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--upstream", "other"], "--upstream: this app has no upstream of this name. They are openai-main."),
        (["--budget", "much"], "--budget: An amount is needed, such as '20 USD' or '100000 tokens'. Got 'much'."),
        (
            ["--base-url", "ftp://x"],
            "--base-url: an http or https URL is needed here, as base_url of the upstream, or in OPENAI_BASE_URL.",
        ),
        (["-o", "in.jsonl"], "--output: this is the input."),
        (["-o", "/dev/stdout"], "--output: the name of a file is needed"),
        (["--workers", "0"], "The command can't be read."),
    ],
)
def test_what_is_mistyped_has_the_status_2_and_one_line(place, provider, options, problem):
    written(place, 1)
    ran = run(place, *options)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"Error: {problem}")
    assert not provider.contents()


def test_input_that_is_not_there_has_the_status_2(place):
    ran = run(place)
    assert (ran.returncode, ran.stderr) == (2, "Error: in.jsonl can't be read: No such file or directory.\n")


def test_output_that_can_t_be_written_is_told_in_one_line(place, provider):
    written(place, 1)
    ran = run(place, "-o", "nowhere/out.jsonl")
    assert ran.returncode == 1
    assert ran.stderr == "Error: nowhere/out.jsonl: No such file or directory.\n"
    assert not provider.contents()


def test_name_that_no_file_can_have_is_told_in_one_line(place, provider):
    written(place, 1)
    ran = run(place, "-o", "x" * 300)
    assert (ran.returncode, ran.stderr) == (2, "Error: --output: File name too long.\n")
    assert not provider.contents()


def test_closed_standard_input_is_told_in_one_line(place, provider):
    shell = ["sh", "-c", '"$@" <&-', "sh", *command(source="-")]
    ran = subprocess.run(shell, cwd=place, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stderr) == (2, "Error: The standard input is closed.\n")
    assert not provider.contents()


def test_app_without_limits_is_told_in_one_line(place, provider):
    written(place, 1)
    shop = place / "shop.py"
    text = shop.read_text(encoding="utf-8")
    off = 'app.config["RATELIMIT_ENABLED"] = False\nlimiter = '
    shop.write_text(text.replace("limiter = ", off), encoding="utf-8")
    ran = run(place)
    assert ran.returncode == 1
    assert ran.stderr == "Error: Limits are switched off in this app (RATELIMIT_ENABLED), so nothing paces calls.\n"
    assert not provider.contents()
