"""What was used beyond a limit is owed, for as long as it takes, but not for ever."""

import pytest
from limited_apps import limited

from flask_ailimit import ConfigurationError
from flask_ailimit.cli import cli

ALGORITHMS = ["token-bucket", "fixed-window", "moving-window", "sliding-window-counter"]


def owing(algorithm="token-bucket", limit="10000 per minute", made=limited, **options):
    """An app that uses what each request names, and reserves one token."""
    limits = made(default_output_tokens=1, token_counter=lambda text: len(text.split()), **options)

    @limits.app.post("/<int:used>", endpoint="answer")
    @limits.limiter.limit_tokens(limit, algorithm=algorithm)
    def answer(used):
        limits.limiter.record_usage(output_tokens=used)
        return ""

    return limits


def use(limits, tokens, key="alice"):
    return limits.client(key).post(f"/{tokens}").status_code


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_overrun_is_owed_in_the_windows_that_follow(algorithm):
    """35,000 of 10,000 are 2.5 periods too many."""
    limits = owing(algorithm)
    assert use(limits, 35_000) == 200
    assert use(limits, 1) == 429
    for _ in range(2):
        limits.clock.advance(60)
        assert use(limits, 1) == 429
    limits.clock.advance(3 * 60)
    assert use(limits, 1) == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("each", [9_000, 30_000, 45_000])
def test_greedy_client_uses_over_time_what_the_limit_allows(algorithm, each):
    """It asks every ten seconds for twenty minutes, and each answer uses far more than was reserved."""
    limits = owing(algorithm)
    total = 0
    for _ in range(120):
        total += each if use(limits, each) == 200 else 0
        limits.clock.advance(10)
    assert total <= 10_000 * (20 + 1) + each


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_requests_at_once_that_overrun_pay_for_all(algorithm):
    """Twelve in flight together use 36,000; none of it is forgotten at the edge of the window."""
    limits = limited(default_output_tokens=1, token_counter=lambda text: len(text.split()))
    depth = [0]

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("10000 per minute", algorithm=algorithm)
    def answer():
        depth[0] += 1
        if depth[0] < 12:
            limits.client().post("/")
        limits.limiter.record_usage(output_tokens=3_000)
        return ""

    limits.client().post("/")
    assert depth[0] == 12
    for _ in range(2):
        limits.clock.advance(60)
        assert limits.client().post("/").status_code == 429


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wait_that_a_client_in_debt_is_told_is_honest(algorithm):
    limits = owing(algorithm)
    use(limits, 35_000)
    answer = limits.client().post("/1")
    assert answer.status_code == 429
    limits.clock.advance(int(answer.headers["Retry-After"]))
    assert use(limits, 1) == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("absurd", [10**6, 10**9, 2**53 - 1])
def test_absurd_report_owes_four_periods_at_most(algorithm, absurd):
    limits = owing(algorithm)
    use(limits, absurd)
    answer = limits.client().post("/1")
    assert int(answer.headers["Retry-After"]) <= 6 * 60
    limits.clock.advance(6 * 60)
    assert use(limits, 1) == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_absurd_report_owes_three_periods_at_least(algorithm):
    limits = owing(algorithm)
    use(limits, 10**9)
    for _ in range(3):
        limits.clock.advance(60)
        assert use(limits, 1) == 429


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_debt_stays_bounded_though_reports_repeat(algorithm):
    limits = owing(algorithm)
    for _ in range(5):
        use(limits, 10**9)
        limits.clock.advance(60)
    limits.clock.advance(6 * 60)
    assert use(limits, 1) == 200


@pytest.mark.parametrize(("periods", "refused", "served"), [(0, 30, 121), (1, 59, 181), (10, 9 * 60, 12 * 60)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bound_of_debt_is_a_setting(algorithm, periods, refused, served):
    limits = owing(algorithm, max_debt_periods=periods)
    use(limits, 10**9)
    limits.clock.advance(refused if periods else 0)
    assert use(limits, 1) == 429
    limits.clock.advance(served)
    assert use(limits, 1) == 200


@pytest.mark.parametrize("value", [-1, 1001, 1.5, "4", None, True])
def test_bound_of_debt_is_checked(value):
    with pytest.raises(ConfigurationError, match="max_debt_periods"):
        limited(max_debt_periods=value)


def test_bound_of_debt_is_read_from_the_config():
    limits = owing(config={"AILIMIT_MAX_DEBT_PERIODS": 0})
    use(limits, 10**9)
    limits.clock.advance(120)
    assert use(limits, 1) == 200


def forgive(limits, subject="alice"):
    return limits.app.test_cli_runner().invoke(cli, ["forgive", subject])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_forgiven_debt_is_owed_no_more(algorithm, made):
    limits = owing(algorithm, made=made)
    use(limits, 10**9)
    result = forgive(limits)
    assert result.exit_code == 0, result.output
    limits.clock.advance(121)
    assert use(limits, 1) == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_forgiving_gives_nothing_to_who_owes_nothing(algorithm, made):
    limits = owing(algorithm, made=made)
    use(limits, 500)
    assert forgive(limits).exit_code == 0
    assert limits.tokens() == 500


def test_forgiving_one_leaves_others_in_debt(made):
    limits = owing(made=made)
    use(limits, 10**9, "alice")
    use(limits, 10**9, "bob")
    forgive(limits, "alice")
    limits.clock.advance(121)
    assert (use(limits, 1, "alice"), use(limits, 1, "bob")) == (200, 429)


def test_forgiving_leaves_a_request_limit_as_it_is(made):
    limits = made(default_output_tokens=1)

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit("3 per minute")
    @limits.limiter.limit_tokens("10000 per minute")
    def answer():
        limits.limiter.record_usage(output_tokens=10**9)
        return ""

    limits.client().post("/")
    assert forgive(limits).exit_code == 0
    assert limits.used()["requests-per-minute"] == 1


def test_forgiving_somebody_unknown_is_no_error(made):
    assert forgive(owing(made=made), "nobody").exit_code == 0


def test_forgiving_without_a_subject_is_an_error():
    result = owing().app.test_cli_runner().invoke(cli, ["forgive"])
    assert result.exit_code == 2
    assert "Missing argument" in result.output
