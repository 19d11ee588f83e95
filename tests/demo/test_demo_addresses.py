"""Where the demo says that it listens, and whether it can."""

import socket

import pytest

from demo_app.addresses import another, greeting, listening, why_not


@pytest.mark.parametrize(
    ("name", "words", "url", "options"),
    [
        (("127.0.0.1", 8000), "http://127.0.0.1:8000", "http://127.0.0.1:8000", ""),
        (("::1", 8000, 0, 0), "http://[::1]:8000", "http://[::1]:8000", ""),
        (("fe80::1%eth0", 80, 0, 2), "http://[fe80::1%25eth0]:80", "http://[fe80::1%25eth0]:80", ""),
        (
            ("0.0.0.0", 8000),
            "http://127.0.0.1:8000 and every other address of this machine",
            "http://127.0.0.1:8000",
            "",
        ),
        (("::", 8000, 0, 0), "http://[::1]:8000 and every other address of this machine", "http://[::1]:8000", ""),
        ("/run/demo.sock", "unix:/run/demo.sock", "http://localhost", "--unix-socket /run/demo.sock"),
        ("/a b", "unix:/a b", "http://localhost", "--unix-socket '/a b'"),
        (b"\0demo", "unix:@demo", "http://localhost", "--abstract-unix-socket demo"),
    ],
)
def test_an_address_is_told_as_clients_need_it(name, words, url, options):
    assert listening(name) == (words, url, options)


def test_all_addresses_are_told_and_the_first_is_in_the_lines():
    told = greeting([("127.0.0.1", 8000), ("::1", 8001, 0, 0), "/run/demo.sock"], "demo-small-key")
    assert told.startswith(
        "The demo listens on http://127.0.0.1:8000\n"
        "The demo listens on http://[::1]:8001\n"
        "The demo listens on unix:/run/demo.sock\n"
    )
    lines = [line for line in told.splitlines() if "curl " in line]
    assert len(lines) == 4
    assert all("http://127.0.0.1:8000/" in line for line in lines)


def test_lines_for_curl_have_no_option_that_an_old_curl_lacks():
    told = greeting([("127.0.0.1", 8000)], "demo-small-key")
    assert "--json" not in told  # 7.82
    assert "%header" not in told  # 7.84
    assert "--fail-with-body" not in told  # 7.76


def test_an_address_that_is_free_can_be_had(tmp_path):
    assert why_not(("127.0.0.1", 0)) is None
    assert why_not(str(tmp_path / "new.sock")) is None


def test_an_address_that_is_taken_is_told_from_one_that_is_wrong(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert why_not(server.getsockname()) == "another program is listening there"
    path = str(tmp_path / "demo.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert why_not(path) == "another program is listening there"
    assert why_not(path) is None  # Nobody listens there any more.
    assert why_not(("127.0.0.1", 80_000)) == "a port is a number from 0 to 65535"
    assert "assign requested address" in why_not(("192.0.2.1", 8000))  # An address that is no machine's.


@pytest.mark.parametrize(
    ("address", "other"),
    [
        (("127.0.0.1", 8000), "127.0.0.1:8001"),
        (("127.0.0.1", 8001), "127.0.0.1:8002"),
        ("/run/demo.sock", "127.0.0.1:8001"),
    ],
)
def test_another_address_is_offered(address, other):
    assert another(address) == other
