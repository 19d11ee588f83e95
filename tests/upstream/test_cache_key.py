"""Which calls the cache may answer; and two calls share an answer only if they are the same call."""

import json

import pytest
from cached_answers import BODY, CHAT, HEADERS, SECRET, asked, ran
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import assume, given
from hypothesis import strategies as st

from flask_ailimit.upstream.cache_key import LONGEST_BODY

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["user", "metadata", "top_p", "n", "stop", "max_tokens", "tool_choice", "new"]) | TEXTS.map(
    lambda text: f"x_{text}".lower()
)
MEMBERS = st.dictionaries(NAMES, VALUES, max_size=4)


def shuffled(value, rng):
    """The same JSON value, with the members of each object in another order."""
    if isinstance(value, list):
        return [shuffled(each, rng) for each in value]
    if isinstance(value, dict):
        members = [(name, shuffled(each, rng)) for name, each in value.items()]
        rng.shuffle(members)
        return dict(members)
    return value


def same_value(one, other):
    """Whether two JSON values are equal: True is no number, and 0 is 0.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[name], other[name]) for name in one)
    return one == other


# What is one question


@given(MEMBERS, st.randoms(use_true_random=False), st.sampled_from([None, 1, 4]))
def test_order_of_members_and_white_space_do_not_matter(members, rng, indent):
    body = {**BODY, **members}
    other = json.dumps(shuffled(body, rng), indent=indent, ensure_ascii=rng.random() < 0.5).encode()
    assert asked(body) == asked(other)


@given(MEMBERS, MEMBERS)
def test_calls_that_differ_in_any_member_are_two_questions(one, other):
    first, second = asked({**BODY, **one}), asked({**BODY, **other})
    assume(first is not None and second is not None)
    assert (first.digest == second.digest) is same_value(one, other)


@given(MEMBERS, NAMES, VALUES)
def test_member_that_is_left_out_is_another_question_than_any_value(members, name, value):
    assume(name not in members)
    without, with_it = asked({**BODY, **members}), asked({**BODY, **members, name: value})
    assume(without is not None and with_it is not None)
    assert without.digest != with_it.digest


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"0", b"0.0", True),
        (b"0", b"-0.0", True),
        (b"0", b"0e5", True),
        (b"100", b"1e2", True),
        (b"1", b"true", False),
        (b"0", b"null", False),
        (b"0", b'"0"', False),
        (b"9007199254740993", b"9007199254740992", False),
        (b'"caf\xc3\xa9"', b'"caf\\u00e9"', True),
        (b'"caf\xc3\xa9"', b'"cafe\xcc\x81"', False),
    ],
)
def test_values_are_compared_as_json_has_them(one, other, same):
    form = b'{"model": "m", "seed": 7, "x": %s}'
    assert (asked(form % one) == asked(form % other)) is same


def test_omitted_temperature_is_not_zero():
    with_seed = {**BODY, "seed": 1}
    without = {name: value for name, value in with_seed.items() if name != "temperature"}
    assert asked(with_seed).digest != asked(without).digest


@pytest.mark.parametrize("member", ["user", "metadata", "prompt_cache_key", "stream_options"])
def test_nothing_of_the_body_is_passed_over(member):
    assert asked({**BODY, member: {"a": "1"}}).digest != asked({**BODY, member: {"a": "2"}}).digest


@pytest.mark.parametrize(
    "other",
    [
        {"account": "second"},
        {"tenant": "bob"},
        {"path": f"{CHAT}?api-version=1"},
        {"path": "/v2/chat/completions"},
        {"headers": {**HEADERS, "Authorization": "Bearer key-of-another"}},
        {"headers": {**HEADERS, "api-key": "another"}},
        {"headers": {**HEADERS, "anthropic-version": "2023-06-01"}},
        {"headers": {**HEADERS, "anthropic-beta": "new"}},
        {"headers": {**HEADERS, "OpenAI-Organization": "org-1"}},
        {"headers": {**HEADERS, "OpenAI-Project": "proj-1"}},
        {"headers": {**HEADERS, "Host": "elsewhere.example"}},
        {"headers": {**HEADERS, "x-nobody-knows": "1"}},
        {"headers": {**HEADERS, "Cookie": "session=1"}},
        {"body": {**BODY, "stream": True}},
        {"body": {**BODY, "stream": False}},
    ],
)
def test_what_may_change_the_answer_is_another_question(other):
    one, another = asked(), asked(**other)
    assert one.digest != another.digest
    assert one.id(SECRET) != another.id(SECRET)
    assert one.key(SECRET) != another.key(SECRET)


@given(*[st.text(max_size=4)] * 4)
def test_accounts_and_tenants_never_run_into_one_another(account, tenant, other_account, other_tenant):
    same = (account, tenant) == (other_account, other_tenant)
    one, other = asked(account=account, tenant=tenant), asked(account=other_account, tenant=other_tenant)
    assert (one == other) is same


def test_what_differs_between_attempts_of_one_call_is_passed_over():
    again = {
        "authorization": HEADERS["Authorization"],
        "CONTENT-TYPE": HEADERS["Content-Type"],
        "x-stainless-retry-count": "2",
        "X-Request-Id": "7",
        "traceparent": "00-1-2-01",
        "User-Agent": "another/2",
        "Accept-Encoding": "gzip",
        "Idempotency-Key": "9",
        "Cookie": "__cf_bm=abc; _cfuvid=def",
    }
    assert asked() == asked(headers=again)


def test_cookies_of_the_network_hide_no_others():
    one, other = (asked(headers={**HEADERS, "Cookie": f"__cf_bm=1; session={name}"}) for name in "ab")
    assert one.digest != other.digest


# What is a question at all


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/messages",
        "/v1/messages?beta=true",
        "/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
        "/v1beta/openai/chat/completions/",
        "/anthropic/v1/messages",
    ],
)
def test_paths_that_generate_are_taken(path):
    assert asked(path=path) is not None


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files",
        "/v1/threads/thread_1/messages",
        "/v1/messages/batches",
        "/v1/messages/count_tokens",
        "/v1/images/generations",
        "/v1/chat/completions/id-1",
        "/v1/responses/resp_1/cancel",
        "/v1/files?x=/v1/chat/completions",
        "/v1/mycompletions",
        "",
    ],
)
def test_other_paths_are_not(path):
    assert asked(path=path) is None


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "post"])
def test_other_methods_are_not(method):
    assert asked(method=method) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[]",
        b"7",
        b'{"temperature": 0',
        b'{"temperature": 0, "temperature": 1}',
        b'{"temperature": 0, "messages": [{"role": "user", "role": "system"}]}',
        b'{"temperature": 0, "Temperature": 1}',
        b'{"temperature": NaN}',
        b'{"temperature": 0, "x": 1e999}',
        b'{"temperature": 0, "x": "\\ud800"}',
        b'{"temperature": 0, "x": "\xff"}',
        b'{"temperature": 0, "x": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"temperature": 0, "stream": "yes"}',
        b'{"temperature": 0, "stream": 1}',
        b'{"temperature": 0}' + b" " * LONGEST_BODY,
    ],
)
def test_bodies_that_readers_may_read_in_two_ways_are_no_question(body):
    assert asked(body, deterministic_only=False) is None


@given(st.binary(max_size=40))
def test_no_body_raises(body):
    asked(body)


@pytest.mark.parametrize(
    ("members", "taken"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"seed": 0}, True),
        ({"seed": 7, "temperature": 1}, True),
        ({}, False),
        ({"temperature": None}, False),
        ({"temperature": 0.01}, False),
        ({"temperature": "0"}, False),
        ({"temperature": False}, False),
        ({"seed": None}, False),
        ({"seed": True}, False),
        ({"seed": "7"}, False),
        ({"TEMPERATURE": 0}, False),
        ({"options": {"temperature": 0}}, False),
    ],
)
def test_only_calls_that_say_that_they_are_deterministic_are_taken_unless_all_are(members, taken):
    body = {"model": "small", "messages": [], **members}
    assert (asked(body) is not None) is taken
    assert asked(body, deterministic_only=False) is not None


def test_embeddings_are_always_deterministic():
    assert asked({"model": "small", "input": ["a", "b"]}, path="/v1/embeddings") is not None


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [{"type": "function"}]},
        {"Tools": [{"type": "function"}]},
        {"functions": [{"name": "f"}]},
        {"store": True},
        {"background": True},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"web_search_options": {"search_context_size": "low"}},
        {"mcp_servers": [{"url": "x"}]},
        {"container": "c"},
        {"plugins": [{"id": "web"}]},
        {"data_sources": [{"type": "azure_search"}]},
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://elsewhere/today.png"}}]}]},
        {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": "http://elsewhere/a"}}]}]},
        {"input": [{"content": [{"type": "input_image", "image_url": "https://elsewhere/a"}]}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
)
def test_calls_that_do_more_or_depend_on_more_are_never_taken(members):
    assert asked({**BODY, **members}, deterministic_only=False) is None


@pytest.mark.parametrize(
    "members",
    [
        {"tools": []},
        {"tools": None},
        {"store": False},
        {"messages": [{"role": "user", "content": "Read https://elsewhere.example"}]},
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
        {"response_format": {"json_schema": {"properties": {"url": {"type": "string"}}}}},
    ],
)
def test_calls_that_only_look_so_are(members):
    assert asked({**BODY, **members}) is not None


@pytest.mark.parametrize(
    ("members", "taken"),
    [({}, False), ({"store": None}, False), ({"store": False}, True), ({"store": False, "prompt": {"id": "p"}}, False)],
)
def test_responses_that_the_provider_keeps_are_not_taken(members, taken):
    body = {"model": "small", "temperature": 0, "input": "hello", **members}
    assert (asked(body, path="/v1/responses") is not None) is taken


# What a question says


def test_nothing_of_a_question_is_in_its_text():
    assert repr(asked()) == "Question(is_stream=False)"
    assert asked({**BODY, "stream": True}).is_stream


def test_id_and_key_depend_on_the_secret_and_say_nothing_of_each_other():
    question = asked()
    said = {question.digest[:32], question.digest[32:]}
    for secret in (SECRET, SECRET + b"2", b"k" * 64):
        said |= {question.id(secret), question.key(secret)}
    assert len(said) == 8
    assert {len(each) for each in said} == {32}


def test_key_is_that_of_hkdf():
    question = asked()
    derived = HKDF(SHA256(), 32, SECRET, b"flask_ailimit: the key of an answer, 1").derive(question.digest)
    assert question.key(SECRET) == derived


def test_question_is_the_same_in_every_process(tmp_path):
    assert ran(tmp_path, "print(asked().id(SECRET).hex())").strip() == asked().id(SECRET).hex()
