"""The table of charges: FOCUS' names and formats, exact amounts, no formulas; and the command that writes it."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from observed_apps import HOUR_US, kept, observed, opened, settlement

from flask_ailimit import AILimiter, api_key
from flask_ailimit.cli import cli
from flask_ailimit.observe.focus import COLUMNS, amount, row_of, write_csv
from flask_ailimit.testing import START_US

NAMES_OF_FOCUS_1_2 = {
    "BilledCost",
    "BillingCurrency",
    "ChargeCategory",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "EffectiveCost",
    "PricingQuantity",
    "PricingUnit",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
}
NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")
NUMBERS = {"BilledCost", "EffectiveCost", "ConsumedQuantity", "PricingQuantity", "x_SettlementNumber", "x_Status"} | {
    name for name in COLUMNS if name.endswith("Tokens") and name.startswith("x_")
}
TEXTS = st.text(max_size=12)
WHOLE = st.integers(0, 2**53 - 1)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "settlements.sqlite"


@pytest.fixture
def served(file):
    with observed(file, name="shop") as served:
        yield served


def table(text):
    """The rows of a CSV, by column."""
    return [*csv.DictReader(io.StringIO(text, newline=""))]


def test_row_has_the_columns_of_focus_and_ours():
    known = {
        "at_us": START_US + 7_900_000,
        "label": "Ada & Co",
        "plan": "pro",
        "endpoint": "chat",
        "model": "large-*",
        "service_tier": "flex",
        "status": 200,
        "input_tokens": 10,
        "cached_input_tokens": 4,
        "cache_write_tokens": 1,
        "cache_write_1h_tokens": 2,
        "output_tokens": 20,
        "reasoning_tokens": 5,
        "units": '{"pages": 3}',
        "cost_nano": 1_250_000,
        "currency": "USD",
        "price": "large-*",
        "price_source": "own table",
        "rates": '{"input": "2.50"}',
    }
    file = io.StringIO(newline="")
    assert write_csv([settlement("req-1", **known)], file, service="shop") == 1
    (row,) = table(file.getvalue())
    assert row == {
        "ChargePeriodStart": "2024-10-04T00:00:07Z",
        "ChargePeriodEnd": "2024-10-04T00:00:08Z",
        "BilledCost": "0.00125",
        "EffectiveCost": "0.00125",
        "BillingCurrency": "USD",
        "ChargeCategory": "Usage",
        "ChargeDescription": "Tokens of large-*",
        "ConsumedQuantity": "30",
        "ConsumedUnit": "Tokens",
        "PricingQuantity": "30",
        "PricingUnit": "Tokens",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "shop",
        "SkuId": "large-*",
        "SubAccountId": "73" * 16,
        "SubAccountName": "Ada & Co",
        "Tags": '{"endpoint": "chat", "plan": "pro"}',
        "x_RequestId": "req-1",
        "x_SettlementNumber": "1",
        "x_InputTokens": "10",
        "x_CachedInputTokens": "4",
        "x_CacheWriteTokens": "3",
        "x_OutputTokens": "20",
        "x_ReasoningTokens": "5",
        "x_ServiceTier": "flex",
        "x_Units": '{"pages": 3}',
        "x_Source": "reported",
        "x_Ending": "complete",
        "x_Status": "200",
        "x_Price": "large-*",
        "x_PriceSource": "own table",
        "x_Rates": '{"input": "2.50"}',
    }
    assert {name for name in COLUMNS if not name.startswith("x_")} == NAMES_OF_FOCUS_1_2


def test_cost_that_is_not_known_is_empty_and_a_free_one_is_0():
    for nano, cell in ((None, ""), (0, "0")):
        row = dict(zip(COLUMNS, row_of(settlement("a", cost_nano=nano), "shop"), strict=True))
        assert (row["BilledCost"], row["EffectiveCost"]) == (cell, cell)


def test_request_without_tokens_is_a_request_and_its_second_settlement_is_none():
    for number, quantity in ((1, "1"), (2, "0")):
        row = dict(zip(COLUMNS, row_of(settlement("a", number), "shop"), strict=True))
        assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == (quantity, "Requests")


@given(WHOLE)
def test_amounts_are_exact_and_have_no_exponent(nano):
    text = amount(nano)
    assert NUMBER.fullmatch(text)
    assert Decimal(text) * 10**9 == nano


@given(
    st.builds(
        settlement,
        request_id=st.just("req-1"),
        at_us=st.integers(0, 4 * 10**15),
        label=st.none() | TEXTS,
        model=st.none() | TEXTS,
        plan=st.none() | TEXTS,
        endpoint=st.none() | TEXTS,
        price=st.none() | TEXTS,
        currency=st.sampled_from(["", "USD"]),
        cost_nano=st.none() | WHOLE,
        input_tokens=WHOLE,
        output_tokens=WHOLE,
    ),
    TEXTS,
)
def test_no_cell_is_a_formula_and_every_text_comes_back(given_one, service):
    file = io.StringIO(newline="")
    write_csv([given_one], file, service=service)
    (row,) = table(file.getvalue())
    for name, cell in row.items():
        assert not cell.strip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
        assert len(cell.splitlines()) <= 1
        if name in NUMBERS:
            assert cell == "" or NUMBER.fullmatch(cell)
    if (given_one.label or "").isprintable():
        assert row["SubAccountName"].removeprefix("'") == (given_one.label or "").removeprefix("'")
    assert json.loads(row["Tags"]) == {
        name: value for name, value in (("endpoint", given_one.endpoint), ("plan", given_one.plan)) if value is not None
    }
    start, end = (datetime.fromisoformat(row[name]) for name in ("ChargePeriodStart", "ChargePeriodEnd"))
    assert (end - start).total_seconds() == 1
    assert start.tzinfo == UTC


def test_sum_of_the_exported_amounts_is_that_of_the_settlements(file):
    with closing(opened(file)) as book:
        some = [settlement(str(number), at_us=number, cost_nano=number * 7_919 + 1) for number in range(3000)]
        book.add(some)
        text = io.StringIO(newline="")
        assert write_csv(book.between(0, 10**9), text, service="shop") == 3000
    total = sum(Decimal(row["BilledCost"]) for row in table(text.getvalue()))
    assert total * 10**9 == sum(each.cost_nano for each in some)


def test_memory_does_not_grow_with_the_table(file):
    peaks = []
    with closing(opened(file)) as book:
        for count in (2_000, 20_000):
            book.add([settlement(f"{count} {number}", at_us=number) for number in range(count)])
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
                tracemalloc.start()
                write_csv(book.between(0, 10**9), nowhere, service="shop")
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5


# The command


def run(served, *arguments, fails=False, given=None):
    ran = served.app.test_cli_runner().invoke(cli, ["export", *arguments], input=given)
    assert (ran.exit_code != 0) == fails, ran.output
    return ran.output


def test_command_prints_a_time_of_everybody_or_of_one(served):
    for key in ("alice", "bob"):
        served.ask(key)
    served.clock.advance(86_400)
    served.ask("alice")
    assert served.writer.flush()

    def ids(*arguments):
        return [(row["ChargePeriodStart"][:10], row["SubAccountId"][:4]) for row in table(run(served, *arguments))]

    alice, bob = (served.limiter.engine.subject(key).hex()[:4] for key in ("alice", "bob"))
    assert ids("--from", "2024-10-01") == [("2024-10-04", alice), ("2024-10-04", bob), ("2024-10-05", alice)]
    assert ids("--from", "2024-10-04", "--to", "2024-10-05") == [("2024-10-04", alice), ("2024-10-04", bob)]
    assert ids("--from", "2024-10-05", "--subject", "bob") == []
    assert ids("--from", "2024-10-01", "--subject", "bob") == [("2024-10-04", bob)]
    hashed = served.limiter.engine.subject("bob").hex()
    assert ids("--from", "2024-10-01", "--subject", hashed, "--hash") == [("2024-10-04", bob)]
    output = run(served, "--from", "2024-10-01", "--subject", "-", given="bob\n")
    assert [row["SubAccountId"] for row in table(output)] == [hashed]
    assert {row["ServiceName"] for row in table(output)} == {"shop"}


def test_days_begin_in_the_zone(served):
    subject = served.limiter.engine.subject("alice")
    berlin = [
        datetime(2026, 3, 29, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2026, 3, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    ]
    start, end = (int(day.timestamp()) * 10**6 for day in berlin)
    assert end - start == 23 * HOUR_US
    times = {"before": start - 1, "first": start, "last": end - 1, "after": end}
    served.writer.settlements.add([settlement(name, at_us=at_us, subject=subject) for name, at_us in times.items()])
    rows = table(run(served, "--from", "2026-03-29", "--to", "2026-03-30", "--zone", "Europe/Berlin"))
    assert [row["x_RequestId"] for row in rows] == ["first", "last"]


def test_day_without_a_midnight_begins_at_the_moment_after(served):
    change = datetime(2026, 4, 24, 1, tzinfo=ZoneInfo("Africa/Cairo"))  # At midnight the clocks were put forward.
    at_us = int(change.timestamp()) * 10**6
    served.writer.settlements.add([settlement("before", at_us=at_us - 1), settlement("first", at_us=at_us)])
    rows = table(run(served, "--from", "2026-04-24", "--zone", "Africa/Cairo"))
    assert [row["x_RequestId"] for row in rows] == ["first"]


def test_file_is_whole_and_for_this_user_alone(served, tmp_path):
    served.ask()
    assert served.writer.flush()
    target = tmp_path / "charges.csv"
    target.write_text("before")
    target.chmod(0o644)
    assert run(served, "--from", "2024-10-01", "-o", str(target)) == ""
    assert len(table(target.read_text())) == 1
    assert target.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir() if "draft" in each.name] == []


def test_file_that_can_not_be_written_leaves_what_was_there(served, tmp_path):
    target = tmp_path / "charges.csv"
    target.mkdir()
    assert "The settlements can't be exported" in run(served, "--from", "2024-10-01", "-o", str(target), fails=True)
    assert [each.name for each in tmp_path.iterdir() if "draft" in each.name] == []
    assert "can't be exported" in run(served, "--from", "2024-10-01", "-o", str(tmp_path / "gone" / "a"), fails=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "yesterday"], "--from: a day is needed, such as 2026-11-01."),
        (["--from", "2026-02-30"], "--from: a day is needed, such as 2026-11-01."),
        (["--from", "0001-01-01", "--zone", "Asia/Tokyo", "--to", "x"], "--to: a day is needed"),
        (["--from", "2026-11-01", "--to", "2026-11-01"], "--to: a day after --from is needed."),
        (["--from", "2026-11-01", "--zone", "Berlin"], "--zone: a name of the time zone database is needed"),
        (["--from", "2026-11-01", "--zone", "../../etc/passwd"], "--zone: a name of the time zone database is needed"),
        (["--from", "2026-11-01", "--subject", ""], "SUBJECT is empty."),
        (["--from", "2026-11-01", "--subject", "xyz", "--hash"], "--hash: 32 hex digits are needed"),
        (["--from", "2026-11-01", "--limiter", "2"], "--limiter: this app has 1. Got 2."),
        ([], "Missing option '--from'"),
    ],
)
def test_wrong_argument_is_named(served, arguments, words):
    output = run(served, *arguments, fails=True)
    assert output.count("\n") == 1
    assert words in output


def test_app_that_keeps_no_settlements_is_told_what_to_set():
    with observed(None) as served:
        assert "Name a file for them in the setting AILIMIT_SETTLEMENTS" in run(
            served, "--from", "2026-11-01", fails=True
        )


def test_limiters_of_one_file_need_no_choice_and_those_of_two_do(tmp_path):
    app = Flask("several")
    for name in ("a", "a", "b"):
        AILimiter(api_key, app=app, storage_uri="memory://", settlements=tmp_path / name, key_prefix=name)
    runner = app.test_cli_runner()
    ran = runner.invoke(cli, ["export", "--from", "2026-11-01"])
    assert "Several limiters of this app keep settlements. Say which, with --limiter." in ran.output
    ran = runner.invoke(cli, ["export", "--from", "2026-11-01", "--limiter", "3"])
    assert ran.output.splitlines() == [",".join(COLUMNS)]
    for limiter in app.extensions["ailimit"]:
        limiter._states[app].engine.close()


def test_command_reads_what_the_app_has_written_and_a_reader_may_stop(file, tmp_path):
    with closing(opened(file)) as book:
        book.add([settlement(str(number), at_us=START_US + number) for number in range(5000)])
    (tmp_path / "app.py").write_text(
        "from flask import Flask\nfrom flask_ailimit import AILimiter, api_key\napp = Flask('shop')\n"
        f"AILimiter(api_key, app=app, storage_uri='memory://', settlements={str(file)!r}, settlements_days=36500)\n"
    )
    command = [sys.executable, "-m", "flask", "--app", "app", "ailimit", "export", "--from", "2024-10-04"]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    if "No such command" in ran.stderr:
        pytest.skip("the package is not installed, so Flask doesn't know its commands")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(table(ran.stdout)) == len(kept(file)) == 5000
    shell = " ".join(map(repr, command)) + " | head -n 2"
    ran = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (len(ran.stdout.splitlines()), ran.stderr) == (2, "")
