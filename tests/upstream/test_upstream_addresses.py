"""What a call takes along to another upstream: never the credential of the first."""

import httpx2
import pytest
from upstream_calls import MESSAGES, World

BODY = {"model": "m", "messages": MESSAGES}
OWN = "http://own.example/v1"


@pytest.fixture
def world():
    world = World(None)
    yield world
    world.close()


def client_of(world, handler, *, own=None, spare=None):
    """A client whose calls go to a spare upstream when the first fails; ``handler`` answers what is sent to either."""
    there = world.upstream(
        "spare", base_url="http://spare.example/v1", headers={"X-Api-Key": "of-spare"}, **(spare or {})
    )
    here = world.upstream(fallback=[there], **(own or {}))
    return httpx2.Client(transport=here.transport(httpx2.MockTransport(handler)), follow_redirects=True)


def failing_at_first(seen, answer=None):
    def handler(request):
        seen.append(request)
        if request.url.host == "own.example":
            return httpx2.Response(500, json={})
        return answer or httpx2.Response(200, json={})

    return handler


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "ocp-apim-subscription-key",
        "cf-aig-authorization",
        "helicone-auth",
        "x-amz-security-token",
        "proxy-authorization",
        "cookie",
        "openai-organization",
        "openai-project",
    ],
)
def test_header_of_the_first_account_goes_to_no_other(world, name):
    seen = []
    with client_of(world, failing_at_first(seen)) as client:
        client.post(f"{OWN}/chat/completions", json=BODY, headers={name: "SECRET", "anthropic-version": "1"})
    assert "SECRET" in seen[0].headers.values()
    assert "SECRET" not in seen[-1].headers.values()
    assert (seen[-1].headers["x-api-key"], seen[-1].headers["anthropic-version"]) == ("of-spare", "1")


def test_credential_in_the_query_goes_to_no_other(world):
    seen = []
    with client_of(world, failing_at_first(seen)) as client:
        client.post(f"{OWN}/chat/completions?a=1&key=SECRET&api-version=2%2F&access_token=SECRET&sig=SECRET", json=BODY)
    assert str(seen[-1].url) == "http://spare.example/v1/chat/completions?a=1&api-version=2%2F"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["http://third.example/x", "/x"])
def test_redirection_of_another_upstream_is_not_followed_with_the_first_credential(world, status, place):
    seen = []
    answer = httpx2.Response(status, headers={"location": place})
    with client_of(world, failing_at_first(seen, answer)) as client:
        answer = client.post(f"{OWN}/chat/completions", json=BODY, headers={"x-api-key": "SECRET"})
    assert [request.url.host for request in seen] == ["own.example", "spare.example"]
    assert (answer.status_code, answer.headers["x-ailimit-upstream"]) == (status, "spare")


@pytest.mark.parametrize(
    ("own_base", "url", "path"),
    [
        (None, "http://own.example/v1/chat/completions", "/v1/chat/completions"),
        (None, "http://own.example/openai/v1/chat/completions", "/v1/chat/completions"),
        (None, "http://own.example/api/v1/chat/completions", "/v1/chat/completions"),
        (None, "http://own.example/chat/completions", "/v1/chat/completions"),
        ("http://own.example/deep/v1", "http://own.example/deep/v1/a/v1/b", "/v1/a/v1/b"),
        ("http://own.example/", "http://own.example/chat/completions", "/v1/chat/completions"),
    ],
)
def test_address_at_another_upstream_is_what_follows_the_own_base_or_the_version(world, own_base, url, path):
    seen = []
    with client_of(world, failing_at_first(seen), own={"base_url": own_base}) as client:
        client.post(url, json=BODY)
    assert str(seen[-1].url) == f"http://spare.example{path}"
