"""The output that is reserved for a request that names no maximum: of a limit, of a view, or of the setting."""

import pytest
from limited_apps import limited

from flask_ailimit import ConfigurationError, TokenLimit

PROMPT = {"input": "Hello, world."}


def reserved(served, body=PROMPT, key="alice"):
    """What a request has reserved of each limit while its view runs, by the limit's name."""
    served.app.config["INSIDE"] = inside = {}
    assert served.client(key).post("/", json=body).status_code == 200
    return inside


def view(served, *decorators):
    def answer():
        verdicts = served.limiter.peek().verdicts
        served.app.config["INSIDE"].update({verdict.quota.name: verdict.used for verdict in verdicts})
        return {}

    for decorate in decorators:
        answer = decorate(answer)
    served.app.post("/")(answer)


def test_limit_s_own_default_comes_before_that_of_the_view_and_the_setting():
    served = limited(default_output_tokens=50, application_token_limits=[TokenLimit("9000 per day", name="plan")])
    view(
        served,
        served.limiter.limit_tokens("8000 per day", name="own", default_output_tokens=7, override_defaults=False),
        served.limiter.limit_tokens("9000 per day", name="usual"),
    )
    told = reserved(served)
    prompt = told["usual"] - 50
    assert 1 <= prompt <= 10
    assert told == {"own": prompt + 7, "usual": prompt + 50, "plan": prompt + 50}


def test_view_s_default_holds_for_all_limits_that_have_none_of_their_own():
    """An embedding generates nothing, also under the limits of the whole application."""
    served = limited(application_token_limits=[TokenLimit("9000 per day", name="plan")])
    own = served.limiter.limit_tokens("9000 per day", name="own", default_output_tokens=5)
    view(served, own, served.limiter.metering(default_output_tokens=0))
    told = reserved(served)
    assert told["own"] == told["plan"] + 5
    assert 1 <= told["plan"] <= 10


def test_each_metering_of_a_view_holds():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_tokens("9000 per day")
    @served.limiter.metering(default_output_tokens=0)
    @served.limiter.metering(recorded_only=True, default_output_tokens=500)
    def answer():
        return {"reserved": served.tokens(), "usage": {"prompt_tokens": 3000, "completion_tokens": 3000}}

    assert served.client().post("/", json=PROMPT).json["reserved"] <= 10
    assert served.tokens() < 3000


def test_refusal_by_an_estimate_of_the_app_s_own_blames_no_default():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_tokens("9000 per day", name="ours")
    @served.limiter.limit_tokens("800 per day", name="own", estimate=lambda _: 700)
    def answer():
        served.limiter.record_usage(input_tokens=200)
        return {}

    answers = [served.client().post("/", json=PROMPT) for _ in range(2)]
    assert [each.status_code for each in answers] == [200, 429]
    assert "requested 700. Try again" in answers[-1].json["detail"]


def test_maximum_that_the_request_names_comes_before_every_default():
    served = limited()
    view(served, served.limiter.limit_tokens("9000 per day", default_output_tokens=0))
    nothing_named = reserved(served)["tokens-per-day"]
    assert reserved(served, {**PROMPT, "max_tokens": 30}, "bob")["tokens-per-day"] == nothing_named + 30


def test_output_limit_with_no_default_reserves_the_least():
    served = limited()
    view(served, served.limiter.limit_tokens("9000 per day", unit="output_tokens", default_output_tokens=0))
    assert reserved(served) == {"output-tokens-per-day": 1}


@pytest.mark.parametrize(("default", "says_so"), [(60, True), (0, False)])
def test_refusal_tells_the_default_of_the_limit_that_refused(default, says_so):
    served = limited(default_output_tokens=20, application_token_limits=[TokenLimit("9000 per day")])

    @served.app.post("/")
    @served.limiter.limit_tokens("100 per day", default_output_tokens=default)
    def answer():
        served.limiter.record_usage(input_tokens=99)
        return {}

    served.client().post("/", json=PROMPT)
    sentence = served.client().post("/", json=PROMPT).json["detail"]
    assert (f"Of these, {default} output tokens were reserved" in sentence) == says_so
    assert "Of these, 20" not in sentence


@pytest.mark.parametrize("value", [-1, 1.5, True, "10", 2**31 + 1])
def test_default_that_is_no_number_of_tokens_is_refused_where_it_is_written(value):
    limiter = limited().limiter
    for decorate in (
        lambda: limiter.limit_tokens("9 per day", default_output_tokens=value),
        lambda: limiter.metering(default_output_tokens=value),
    ):
        with pytest.raises(ConfigurationError, match="default_output_tokens: a whole number from 0"):
            decorate()


@pytest.mark.parametrize("unit", ["tokens", "output_tokens"])
def test_default_that_takes_the_whole_limit_is_refused_where_it_is_written(unit):
    with pytest.raises(ConfigurationError, match="default_output_tokens: 100 is all that '100"):
        limited().limiter.limit_tokens("100 per day", unit=unit, default_output_tokens=100)


@pytest.mark.parametrize("setting", ["default_token_limits", "application_token_limits"])
def test_setting_is_no_matter_of_a_limit_with_a_default_of_its_own(setting):
    limited(default_output_tokens=100, **{setting: [TokenLimit("100 per day", default_output_tokens=0)]})
    with pytest.raises(ConfigurationError, match="default_output_tokens: 100 is all that '100"):
        limited(default_output_tokens=100, **{setting: [TokenLimit("100 per day")]})


def test_default_output_is_no_matter_of_an_input_limit():
    limited().limiter.limit_tokens("100 per day", unit="input_tokens", default_output_tokens=100)
