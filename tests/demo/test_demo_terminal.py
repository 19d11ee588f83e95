"""What whoever types ``make demo`` sees, from a gunicorn that really listens. The model is not asked."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HAS_IPV6 = Path("/proc/net/if_inet6").exists() and "00000000000000000000000000000001" in Path(
    "/proc/net/if_inet6"
).read_text(encoding="utf-8")

pytestmark = pytest.mark.server
needs_curl = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="needs curl and bash")


@contextmanager
def demo(tmp_path, bind, *, pass_fds=(), **environ):
    """The demo in a process group of its own, as a terminal starts it, and the file with what it prints."""
    log = tmp_path / "log"
    environ = {
        **os.environ,
        "DEMO_BIND": bind,
        "DEMO_STORAGE_URI": f"local://{tmp_path}/limits",
        "PYTHONPATH": str(ROOT),
        **environ,
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "demo_app/gunicorn_conf.py"]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=out, stderr=out, pass_fds=pass_fds, start_new_session=True
        )
    try:
        yield process, log
    finally:
        process.terminate()
        process.wait(120)


def printed(process, log):
    """All lines, once the last of them is there."""
    give_up = time.monotonic() + 120
    while "Ask until you are refused" not in (text := log.read_text(encoding="utf-8")):
        assert process.poll() is None, text
        assert time.monotonic() < give_up, text
        time.sleep(0.05)
    return text


def usage_by_its_line(text):
    """What the printed line for ``/usage`` answers."""
    (line,) = re.findall(r"^curl .*/usage.*$", text, re.MULTILINE)
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ran = subprocess.run(["bash", "-euc", line], env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return {limit["name"] for limit in json.loads(ran.stdout)["limits"]}


@needs_curl
@pytest.mark.parametrize(
    ("bind", "listens"),
    [
        ("127.0.0.1:0", [r"http://127\.0\.0\.1:[1-9]\d+"]),
        ("0.0.0.0:0", [r"http://127\.0\.0\.1:[1-9]\d+ and every other address of this machine"]),
        pytest.param(
            "[::1]:0",
            [r"http://\[::1\]:[1-9]\d+"],
            marks=pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6"),
        ),
        ("unix:{tmp}/demo.sock", [r"unix:.*/demo\.sock"]),
        ("127.0.0.1:0,unix:{tmp}/demo.sock", [r"http://127\.0\.0\.1:[1-9]\d+", r"unix:.*/demo\.sock"]),
    ],
)
def test_the_terminal_says_where_the_demo_listens_and_the_lines_work(tmp_path, bind, listens):
    with demo(tmp_path, bind.format(tmp=tmp_path)) as (process, log):
        text = printed(process, log)
        told = re.findall(r"^The demo listens on (.*)$", text, re.MULTILINE)
        assert len(told) == len(listens)
        assert all(re.fullmatch(*each) for each in zip(listens, told, strict=True))
        assert usage_by_its_line(text) == {
            *("requests-per-minute", "tokens-per-minute", "concurrency", "usd-per-calendar-month")
        }
        assert "Bearer demo-penny-key" in text


@needs_curl
def test_an_inherited_socket_is_told_by_its_address(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        demo(tmp_path, f"fd://{listener.fileno()}", pass_fds=[listener.fileno()]) as (process, log),
    ):
        text = printed(process, log)
        assert f"The demo listens on http://127.0.0.1:{listener.getsockname()[1]}\n" in text
        assert usage_by_its_line(text)


def test_a_taken_port_is_told_with_the_cure(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with demo(tmp_path, f"127.0.0.1:{port}") as (process, log):
            assert process.wait(120) == 1
            assert log.read_text(encoding="utf-8") == (
                f"The demo can't listen on http://127.0.0.1:{port}: another program is listening there.\n"
                "Choose another address: DEMO_BIND=127.0.0.1:8001 make demo\n"
            )


def test_a_demo_that_can_not_serve_does_not_say_that_it_listens(tmp_path):
    with demo(tmp_path, "127.0.0.1:0", DEMO_SMALL_KEY="short") as (process, log):
        assert process.wait(120) != 0
        text = log.read_text(encoding="utf-8")
        assert "DEMO_SMALL_KEY: a key has 8 to 128 visible ASCII characters" in text
        assert "listens" not in text


def test_ctrl_c_ends_the_demo_at_once_and_without_a_word(tmp_path):
    with demo(tmp_path, "127.0.0.1:0") as (process, log):
        text = printed(process, log)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        give_up = time.monotonic() + 120
        while len(workers) < 2 or not all(ignores_sigint(worker) for worker in workers):
            assert time.monotonic() < give_up
            time.sleep(0.05)
            workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
        assert process.wait(50) == 0  # A worker that hangs is killed after 60 s.
        assert not [worker for worker in workers if Path("/proc", worker).exists()]
        assert log.read_text(encoding="utf-8") == text


def ignores_sigint(pid):
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return bool(int(re.search(r"SigIgn:\s*(\w+)", status)[1], 16) & 1 << signal.SIGINT - 1)
