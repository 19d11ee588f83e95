"""Money is limited only over a store that keeps its counts, unless the app accepts that they are lost."""

import logging
import threading
from pathlib import Path

import pytest
from flask import Blueprint, Flask, request
from limited_apps import limited

from flask_ailimit import AILimiter, Caller, ConfigurationError, Payer, StoreError
from flask_ailimit.durable import Durability
from flask_ailimit.engine import StateStore
from flask_ailimit.engine.charge import ALLOW, DENY, LOCAL
from flask_ailimit.engine.stores import lasting
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.engine.stores.memory import MemoryStore

PRICES = {"*": {"input": "1 USD", "output": "1 USD"}}
PLAIN = {"default_plan": "pro", "plans": {"pro": {"requests": "5 per minute"}}}
WITH_MONEY = {"default_plan": "pro", "prices": PRICES, "plans": {"pro": {"budget": "5 USD per calendar month"}}}
OF_MODELS = {
    **WITH_MONEY,
    "plans": {"pro": {"requests": "5 per minute", "models": {"*": {"budget": "5 USD per calendar month"}}}},
}
OF_SERVICE = {**WITH_MONEY, "plans": PLAIN["plans"], "service": {"budget": "5 USD per calendar month"}}
IN_MEMORY = "storage_uri is memory://"


def opened(uri="memory://", *, config=None, testing=False, **options):
    """A limiter of an app that doesn't accept the loss, unless it is said."""
    app = Flask("shop", static_folder=None)
    app.config.update(config or {})
    app.testing = testing
    limiter = AILimiter(lambda: "7", app=app, storage_uri=uri, **options)
    return app, limiter


def refused(call, *words):
    with pytest.raises(ConfigurationError) as raised:
        call()
    assert [word for word in (*words, "AILIMIT_ACCEPT_MONEY_LOSS = True") if word not in str(raised.value)] == []


# Where money is found


@pytest.mark.parametrize("plans", [WITH_MONEY, OF_MODELS, OF_SERVICE])
def test_plans_with_money_are_refused_in_memory(plans):
    refused(lambda: opened(plans=plans), IN_MEMORY, "every budget would be granted anew", "local:///var/lib/myapp")


def test_plans_without_money_are_not():
    opened(plans=PLAIN)


def test_decorator_that_was_written_before_is_found_in_init_app():
    limiter = AILimiter(lambda: "7", storage_uri="memory://", prices=PRICES)
    view = limiter.limit_budget("5 USD per day")(dict)  # What nobody has any more is limited no more.
    assert view
    refused(lambda: limiter.init_app(Flask("shop")), IN_MEMORY)


def test_limit_of_a_blueprint_is_found_in_init_app():
    limiter = AILimiter(lambda: "7", storage_uri="memory://", prices=PRICES)
    limiter.limit_budget("5 USD per day")(Blueprint("chat", __name__))
    refused(lambda: limiter.init_app(Flask("shop")), IN_MEMORY)


def test_decorator_that_is_written_afterwards_is_refused_there():
    _, limiter = opened(prices=PRICES)
    refused(lambda: limiter.limit_budget("5 USD per day")(dict), IN_MEMORY)
    refused(lambda: limiter.limit_budget(lambda: "5 USD per day", currency="USD")(dict), IN_MEMORY)
    refused(lambda: limiter.limit_budget("5 USD per day")(Blueprint("chat", __name__)), IN_MEMORY)
    limiter.limit_tokens("5 per day")(dict)


def test_block_is_refused_where_it_is_entered():
    app, limiter = opened(prices=PRICES)
    with app.test_request_context():
        refused(lambda: limiter.limit_budget("5 USD per day").__enter__(), IN_MEMORY)


def test_reload_that_brings_money_leaves_the_plans_as_they_are(tmp_path, caplog):
    file = tmp_path / "plans.toml"
    file.write_text('default_plan = "pro"\n[plans.pro]\nrequests = "5 per minute"\n')
    app, limiter = opened(plans=str(file))
    prices = '[prices."*"]\ninput = "1 USD"\noutput = "1 USD"\n'
    file.write_text(f'default_plan = "pro"\n[plans.pro]\nbudget = "5 USD per calendar month"\n{prices}')
    with app.app_context():
        with pytest.raises(ValueError, match=r"The plans stay as they are.*storage_uri is memory://"):
            limiter.admin.reload(reason="money", by="ann")
        limiter.app_state.reload_plans()
        assert "The plans stay as they were" in caplog.text
        assert [each.unit for each in limiter.app_state.plans.plans["pro"].limits] == ["requests"]


# Ways out


def test_app_may_accept_the_loss():
    opened(plans=WITH_MONEY, accept_money_loss=True)
    opened(plans=WITH_MONEY, config={"AILIMIT_ACCEPT_MONEY_LOSS": True})


def test_app_that_is_testing_counts_money_in_memory():
    _, limiter = opened(plans=WITH_MONEY, testing=True)
    limiter.limit_budget("5 USD per day")(dict)


def test_app_that_turns_out_to_be_one_of_tests_may_have_later_limits_on_money():
    app, limiter = opened(prices=PRICES)
    app.testing = True
    limiter.limit_budget("5 USD per day")(dict)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_setting_is_true_or_false(value):
    with pytest.raises(ConfigurationError, match="accept_money_loss: True or False"):
        opened(accept_money_loss=value)


# Stores


@pytest.fixture
def on_a_disk(monkeypatch):
    """Tests' own directories are in one that is cleaned."""
    monkeypatch.setattr(lasting, "_CLEANED", ())


def test_directory_on_a_disk_is_taken(tmp_path, on_a_disk):
    _, limiter = opened(f"local://{tmp_path}/limits", plans=WITH_MONEY)
    limiter._latest.opened.close()


def test_default_place_in_memory_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(lasting.directory, "file_system", lambda _: "tmpfs")
    refused(lambda: opened(f"local://{tmp_path}/limits", plans=WITH_MONEY), "restart of the machine", "(tmpfs)")


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("/dev/shm/limits", "tmpfs", "Counts end with a restart of the machine"),
        ("/run/limits", "ramfs", "is in memory (ramfs)"),
        ("/srv/limits", "overlay", "end with the container: /srv/limits is in its own layer (overlay). Mount a volume"),
        ("/srv/limits", "fuse.fuse-overlayfs", "Counts end with the container"),
        ("/tmp/limits", "ext4", "Counts end when /tmp is cleaned"),
        ("/var/tmp/a/b", "xfs", "Counts end when /var/tmp is cleaned"),
        ("/srv/limits", "ext4", None),
        ("/srv/limits", "", None),
        ("/var/tmps", "xfs", None),
    ],
)  # fmt: skip
def test_directory_says_with_what_it_ends(monkeypatch, path, kind, says):
    monkeypatch.setattr(lasting.directory, "file_system", lambda _: kind)
    found = LocalStore(Path(path)).may_lose_counts()
    assert found is says is None or says in found


def test_link_into_a_directory_that_is_cleaned_is_seen_through(tmp_path, monkeypatch):
    monkeypatch.setattr(lasting, "_CLEANED", (tmp_path.resolve() / "cleaned",))
    (tmp_path / "cleaned").mkdir()
    (tmp_path / "kept").symlink_to(tmp_path / "cleaned")
    assert "is cleaned" in lasting.why_it_ends(tmp_path / "kept" / "limits")
    assert lasting.why_it_ends(tmp_path / "limits") is None


def test_store_that_does_not_say_it_is_refused():
    class OfAnApp(StateStore):
        def transaction(self):
            raise NotImplementedError

        def clear(self):
            raise NotImplementedError

    refused(Durability(OfAnApp(), lambda: False, []).require, "doesn't say whether its counts last")


@pytest.mark.parametrize(
    ("options", "config", "says"),
    [
        ({"swallow_errors": True}, {}, "RATELIMIT_SWALLOW_ERRORS"),
        ({}, {"RATELIMIT_SWALLOW_ERRORS": True}, "RATELIMIT_SWALLOW_ERRORS"),
        ({"in_memory_fallback_enabled": True}, {}, "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED"),
        ({"in_memory_fallback": ["5 per minute"]}, {}, "RATELIMIT_IN_MEMORY_FALLBACK"),
        ({}, {"RATELIMIT_IN_MEMORY_FALLBACK": "5 per minute"}, "RATELIMIT_IN_MEMORY_FALLBACK"),
    ],
)
def test_options_by_which_money_passes_uncounted_are_refused(tmp_path, on_a_disk, options, config, says):
    uri = f"local://{tmp_path}/limits"
    refused(lambda: opened(uri, plans=WITH_MONEY, config=config, **options), says, "uncounted")


def test_option_that_was_switched_off_is_no_reason(tmp_path, on_a_disk):
    config = {"RATELIMIT_SWALLOW_ERRORS": True}
    _, limiter = opened(f"local://{tmp_path}/limits", plans=WITH_MONEY, swallow_errors=False, config=config)
    limiter._latest.opened.close()


# A store that is away


class Away(MemoryStore):
    """A store that can't be asked at first."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = [*answers]
        self.told = threading.Event()

    def may_lose_counts(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.told.set()
        return answer


@pytest.mark.parametrize(("answer", "errors"), [("It forgets all.", 1), (None, 0)])
def test_store_that_is_away_is_asked_until_it_answers(monkeypatch, caplog, answer, errors):
    monkeypatch.setattr("flask_ailimit.durable._ASKED_AGAIN_AFTER", 0.01)
    store = Away(StoreError("away"), StoreError("still away"), answer)
    durability = Durability(store, lambda: False, [])
    durability.require()
    assert "looked at later: away" in caplog.text
    assert store.told.wait(30)
    while durability._asking.is_alive():
        threading.Event().wait(0.01)
    said = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(said) == errors
    assert all("Money is not safe" in each.getMessage() and "It forgets all." in each.getMessage() for each in said)


def test_store_that_answered_well_is_asked_once():
    store = Away(None)
    durability = Durability(store, lambda: False, [])
    durability.require()
    durability.require()
    assert store.answers == []


# While the store is away


@pytest.mark.parametrize(("setting", "of_money"), [(LOCAL, DENY), (ALLOW, DENY), (DENY, DENY)])
def test_limit_on_money_refuses_while_the_store_is_away_whatever_the_app_says(setting, of_money):
    served = limited(None, plans=WITH_MONEY, on_store_error=setting, prices=None)
    served.limiter.identify(lambda: Caller(user=Payer(request.args["user"])))
    served.app.post("/", endpoint="planned")(served.limiter.limit_by_plan()(dict))
    with served.app.test_request_context("/?user=7", method="POST"):
        assert [each.charge.on_store_error for each in served.limiter.peek("planned").verdicts] == [of_money]


def test_limit_on_money_that_names_a_policy_has_it():
    served = limited(lambda: "7", prices=PRICES)

    @served.app.get("/")
    @served.limiter.limit_budget("5 USD per day", on_store_error="local")
    @served.limiter.limit("5 per day")
    def chat():
        return {}

    with served.app.test_request_context("/"):
        found = {each.quota.unit: each.charge.on_store_error for each in served.limiter.peek("chat").verdicts}
    assert found == {"nano_usd": LOCAL, "requests": LOCAL}


def test_request_with_money_is_a_503_while_the_store_is_away(monkeypatch):
    served = limited(None, plans=WITH_MONEY, on_store_error="allow")
    served.limiter.identify(lambda: Caller(user=Payer("7")))
    served.app.post("/")(served.limiter.limit_by_plan()(dict))

    def away(*_, **__):
        raise StoreError("away")

    monkeypatch.setattr(served.limiter._latest.engine.store, "reserve", away)
    body = {"model": "m", "max_tokens": 5, "messages": []}
    assert served.client().post("/", json=body).status_code == 503
