"""The pages about what several routes share, and about units of one's own."""

import io

import httpx2
import pytest
from app_server import serving
from pages import imported
from real_servers import PATIENCE

from flask_ailimit import AILimiter, usage_settled
from flask_ailimit.testing import limits_clock  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("limits_clock")
KEY = {"Authorization": "Bearer key-of-ada"}


def used(page, endpoint):
    with page.app.test_request_context(method="POST"):
        left = page.limiter.peek(endpoint, "key-of-ada")
    verdicts = [*left.verdicts, *(verdict for limit in left.uncertain for verdict in limit.verdicts)]
    return {each.quota.text: each.used for each in verdicts}


class TestOneAllowance:
    @pytest.fixture
    def page(self, tmp_path):
        with imported("how-to/one-allowance.md", tmp_path) as module:
            yield module

    def test_all_routes_have_one_allowance_and_two_of_them_another_one(self, page):
        bodies = {
            "chat/completions": {"max_tokens": 40, "messages": []},
            "embeddings": {"input": "hello"},
            "images": {"prompt": "a", "max_tokens": 1000},
            "speech": {"input": "a", "max_tokens": 200},
        }
        with serving(page.app) as address:
            for route, body in bodies.items():
                answer = httpx2.post(f"{address}/v1/{route}", json=body, headers=KEY, timeout=PATIENCE)
                assert answer.status_code == 200
        tokens = 42 + 5 + 1010 + 210
        for endpoint in ("chat", "embed", "images", "speech"):
            counts = used(page, endpoint)
            assert counts["60 requests per 60 s"] == 4
            assert counts["100000 tokens per 60 s"] == tokens
            assert counts.get("20000 tokens per 86400 s") == (1220 if endpoint in ("images", "speech") else None)

    def test_route_is_refused_by_either_allowance_and_neither_is_charged(self, page):
        body = {"prompt": "a", "max_tokens": 20_001}
        with serving(page.app) as address:
            refused = httpx2.post(f"{address}/v1/images", json=body, headers=KEY, timeout=PATIENCE)
        assert refused.status_code == 413
        assert set(used(page, "images").values()) == {0}

    def test_route_without_tokens_is_let_in_when_the_tokens_are_used_up_and_stays_in_the_other_limits(self, page):
        body = {"max_tokens": 99_990, "messages": []}
        page.limiter.record_usage = lambda **_: AILimiter.record_usage(page.limiter, output_tokens=100_000)
        with serving(page.app) as address:
            ask = {"headers": KEY, "timeout": PATIENCE}
            answers = [
                httpx2.post(f"{address}/v1/chat/completions", json=body, **ask),
                httpx2.post(f"{address}/v1/chat/completions", json=body, **ask),
                *(httpx2.get(f"{address}/v1/models", **ask) for _ in range(60)),
            ]
        assert [answer.status_code for answer in answers] == [200, 429] + [200] * 59 + [429]
        policies = [name.split(";")[0] for name in answers[2].headers["RateLimit-Policy"].split(", ")]
        assert policies == ['"requests-per-minute"', '"concurrency"']

    def test_embeddings_reserve_no_output(self, page):
        reserved = []
        page.limiter.record_usage = lambda **_: reserved.append(used(page, "embed")["100000 tokens per 60 s"])
        with serving(page.app) as address:
            httpx2.post(f"{address}/v1/embeddings", json={"input": "hello"}, headers=KEY, timeout=PATIENCE)
        assert 0 < reserved[0] < 20


class TestOwnUnit:
    @pytest.fixture
    def page(self, tmp_path):
        with imported("how-to/own-unit.md", tmp_path) as module:
            yield module

    @staticmethod
    def send(address, *pages):
        files = [("page", (f"{number}.txt", io.BytesIO(text))) for number, text in enumerate(pages)]
        return httpx2.post(f"{address}/v1/read", files=files, headers=KEY, timeout=PATIENCE)

    def test_pages_that_were_read_are_charged(self, page):
        events = []

        def hear(sender, **event):
            events.append(event)

        with usage_settled.connected_to(hear, page.app), serving(page.app) as address:
            answer = self.send(address, b"one", b"", b"two")
        assert answer.json() == {"texts": ["one", "two"]}
        assert '"pages-per-day";q=100' in answer.headers["RateLimit-Policy"]
        assert used(page, "read") == {"100 pages per 86400 s": 2}
        assert events[0]["units"] == {"pages": 2}

    @pytest.mark.parametrize(("wanted", "made"), [(3, 3), (None, 1), (0, 1), (-5, 1), (1e3, 1), (10**30, 1), ("x", 1)])
    def test_images_cost_what_is_made_and_no_tokens(self, page, wanted, made):
        events = []

        def hear(sender, **event):
            events.append((event["units"], event["usage"].total_tokens, event["source"]))

        body = {"prompt": "a cat", "n": wanted}
        with usage_settled.connected_to(hear, page.app), serving(page.app) as address:
            answer = httpx2.post(f"{address}/v1/images", json=body, headers=KEY, timeout=PATIENCE)
        assert len(answer.json()["data"]) == made
        assert events == [({"images": made}, 0, "recorded")]
        assert used(page, "images") == {"100000 tokens per 60 s": 0, "50 images per 86400 s": made}

    def test_images_without_a_record_of_tokens_have_their_prompt_counted(self, tmp_path):
        events = []

        def hear(sender, **event):
            events.append(event["source"])

        without = {"    limiter.record_usage()  # no tokens were used\n": ""}
        with imported("how-to/own-unit.md", tmp_path, replaced=without) as page:
            with usage_settled.connected_to(hear, page.app), serving(page.app) as address:
                httpx2.post(f"{address}/v1/images", json={"prompt": "a cat"}, headers=KEY, timeout=PATIENCE)
            assert used(page, "images")["100000 tokens per 60 s"] > 0
        assert events == ["counted"]

    def test_more_pages_than_are_left_are_refused_with_a_wait_and_more_than_all_for_ever(self, page):
        with serving(page.app) as address:
            assert self.send(address, *[b"a"] * 60).status_code == 200
            refused = self.send(address, *[b"a"] * 60)
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) > 0
            assert self.send(address, *[b"a"] * 101).status_code == 413
