"""What budgets are charged is what the file, the costs page and the export say, to the nano-unit."""

import csv
import io
import json
from decimal import Decimal

import pytest
from flask import Flask, Response, request, stream_with_context
from hypothesis import given, settings
from hypothesis import strategies as st
from observed_apps import SECRET, kept

from flask_ailimit import AILimiter, Caller, Payer
from flask_ailimit.cli import cli

PLANS = {
    "plans": {"pro": {"budget": "1000 USD per calendar month", "models": {"large-*": True, "small": True}}},
    "prices": {
        "large-*": {"input": "2.50 USD", "cached_input": "1.25 USD", "output": "10.00 USD"},
        "small": {"input": "0.0001 USD", "output": "0.00033 USD"},
    },
}
RATES = {
    "large-*": (Decimal("2.50"), Decimal("1.25"), Decimal(10)),
    "small": (Decimal("0.0001"), Decimal("0.0001"), Decimal("0.00033")),
}


class Priced:
    """An app whose models have prices, and whose answers use what they are asked to."""

    def __init__(self, file, plans=PLANS):
        self.file = file
        self.app = Flask("priced", static_folder=None)
        options = {"storage_uri": "memory://", "accept_money_loss": True, "secret": SECRET}
        self.limiter = AILimiter(app=self.app, plans=plans, settlements=file, **options)
        self.limiter.identify(lambda: Caller(user=Payer("7", plan="pro", label="Ada")))
        self.app.post("/chat", endpoint="chat")(self.limiter.limit_by_plan()(self.chat))
        self.app.post("/agent", endpoint="agent")(self.limiter.limit_by_plan()(self.agent))
        self.app.add_url_rule("/usage", view_func=self.limiter.usage_view)

    @staticmethod
    def chat():
        inputs, cached, outputs = request.json["used"]
        details = {"cached_tokens": cached}
        usage = {"prompt_tokens": inputs, "completion_tokens": outputs, "prompt_tokens_details": details}
        return {"choices": [], "usage": usage}

    def agent(self):
        def events():
            self.limiter.record_usage(input_tokens=9, output_tokens=5)
            yield 'data: {"choices": []}\n\n'
            yield "data: [DONE]\n\n"
            self.limiter.record_usage(input_tokens=11, output_tokens=25)

        return Response(stream_with_context(events()), mimetype="text/event-stream")

    def ask(self, model, used=(0, 0, 0), path="/chat"):
        body = {"model": model, "max_tokens": 50, "messages": [], "used": used}
        answer = self.app.test_client().post(path, json=body)
        assert answer.status_code == 200, answer.text
        answer.get_data()

    def spent(self):
        """What the budget says is spent, in nano-units."""
        (budget,) = [each for each in self.app.test_client().get("/usage").json["limits"] if each["unit"] == "nano_usd"]
        return budget["used"]

    def costs(self):
        page = self.app.test_client().get("/usage?bucket_width=1d&of=costs&group_by=line_item").json
        return {each["line_item"]: each["amount"]["nano"] for bucket in page["data"] for each in bucket["results"]}

    def exported(self):
        ran = self.app.test_cli_runner().invoke(cli, ["export", "--from", "2020-01-01", "--subject", "user:7"])
        return [*csv.DictReader(io.StringIO(ran.output, newline=""))]

    def close(self):
        with self.app.app_context():
            self.limiter.engine.close()


@pytest.fixture
def priced(tmp_path):
    priced = Priced(tmp_path / "settlements.sqlite")
    yield priced
    priced.close()


def nano_of(model, used):
    """What a usage costs by decimal arithmetic, rounded up once."""
    inputs, cached, outputs = used
    of_input, of_cached, of_output = RATES[model]
    millionths = (inputs - cached) * of_input + cached * of_cached + outputs * of_output
    return int((millionths * 1000).to_integral_value("ROUND_CEILING"))


def test_settlement_has_the_price_and_the_rates_that_held(priced):
    priced.ask("large-1", (1000, 400, 200))
    assert priced.limiter._writers[priced.app].flush()
    (row,) = kept(priced.file)
    assert (row.cost_nano, row.currency, row.price, row.model, row.label) == (
        4_000_000,
        "USD",
        "large-*",
        "large-*",
        "Ada",
    )
    assert {kind: Decimal(rate) for kind, rate in json.loads(row.rates).items()} == {
        "input": Decimal("2.5"),
        "cached_input": Decimal("1.25"),
        "output": Decimal(10),
    }
    assert row.price_source


USED = st.integers(0, 10**6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, 10**6)))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(["large-*", "small"]), USED), min_size=1, max_size=6))
def test_budget_page_and_export_agree_with_decimal_arithmetic(tmp_path_factory, calls):
    priced = Priced(tmp_path_factory.mktemp("priced") / "settlements.sqlite")
    try:
        expected = {}
        for model, used in calls:
            priced.ask(model.replace("*", "1"), used)
            expected[model] = expected.get(model, 0) + nano_of(model, used)
        assert priced.costs() == expected
        rows = priced.exported()
        assert sum(Decimal(row["BilledCost"]) for row in rows) * 10**9 == sum(expected.values())
        assert priced.spent() == sum(expected.values())
    finally:
        priced.close()


def test_two_settlements_of_a_request_add_up_to_what_it_costs(priced):
    priced.ask("large-1", path="/agent")
    assert priced.costs() == {"large-*": nano_of("large-*", (20, 0, 30))}
    assert [row["x_SettlementNumber"] for row in priced.exported()] == ["1", "2"]
    assert priced.spent() == nano_of("large-*", (20, 0, 30))


def test_models_that_no_pattern_of_the_plan_names_are_told_apart_by_their_prices(tmp_path):
    plans = {"plans": {"pro": {"budget": "1000 USD per calendar month"}}, "prices": PLANS["prices"]}
    priced = Priced(tmp_path / "settlements.sqlite", plans)
    priced.ask("large-1", (1000, 400, 200))
    priced.ask("small", (1000, 400, 200))
    assert priced.costs() == {name: nano_of(name, (1000, 400, 200)) for name in ("large-*", "small")}
    assert [row["SkuId"] for row in priced.exported()] == ["large-*", "small"]
    priced.close()
