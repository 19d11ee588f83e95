"""The code of a page, as a module that its reader would have written."""

import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import pytest
from page_blocks import texts

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

if not DOCS.exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)


def blocks(page, language):
    """The blocks of a page of docs/ in a language."""
    found = texts(f"docs/{page}", language)
    assert found
    return found


def code_of(page):
    """All Python of a page, from top to bottom, without its tests."""
    return "\n\n".join(block for block in blocks(page, "python") if not block.startswith("# test_"))


_FILE = re.compile(r"# (\w+\.py)\n")


def write_code(page, directory, name, replaced=()):
    """Write the code of a page, with some texts replaced, and return the file of its app.

    If several blocks name files, each is written to its file, and the last is the app. Otherwise all Python is the app.
    """
    code = code_of(page)
    named = [block for block in blocks(page, "python") if _FILE.match(block) and not block.startswith("# test_")]
    *others, app = named if len(named) > 1 else [code]
    file = directory / f"{name}.py"
    for old in dict(replaced):
        assert old in code
    for path, text in [*((directory / _FILE.match(other)[1], other) for other in others), (file, app)]:
        path.write_text(
            reduce(lambda so_far, pair: so_far.replace(*pair), dict(replaced).items(), text), encoding="utf-8"
        )
    return file


@contextmanager
def served_as_written(page, directory, *, name="app", **environment):
    """The address of the gunicorn that a page tells to start, over the page's code, and its log.

    The page's ports can't be used here: it listens on a socket that is bound already.
    """
    write_code(page, directory, name)
    (line,) = [line for block in blocks(page, "sh") for line in block.splitlines() if "gunicorn " in line]
    arguments = shlex.split(line.partition("gunicorn ")[2].partition(" 2>>")[0])
    assert arguments[-1].startswith(f"{name}:")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--no-control-socket",
        "--bind",
        f"fd://{listener.fileno()}",
        *arguments,
    ]
    log = directory / "app.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment_of(directory) | environment,
            stdout=file,
            stderr=file,
            pass_fds=[listener.fileno()],
        )
    port = listener.getsockname()[1]
    listener.close()  # The server's own now: if it ends, so do the calls that wait for it.
    try:
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.send_signal(signal.SIGINT)  # at once: there is no request left to wait for
        process.wait(120)


def environment_of(directory):
    """The environment of a process that runs a page's code: the package under test, and stores of its own."""
    stores = directory / "stores"
    stores.mkdir(exist_ok=True)
    paths = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
    return os.environ | {"PYTHONPATH": paths, "AILIMIT_STORES_DIRECTORY": str(stores)}


@contextmanager
def imported(page, directory, *, name=None, replaced=()):
    """The code of a page as a module, with some texts replaced.

    The module has a directory of its own, and so has its limiter's default store.
    """
    name = name or f"page_{Path(page).stem.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, write_code(page, directory, name, replaced))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(directory))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(directory))
        for each, loaded in [*sys.modules.items()]:
            if str(getattr(loaded, "__file__", "")).startswith(str(directory)):
                del sys.modules[each]
        limiter = getattr(module, "limiter", None)
        for app in list(getattr(limiter, "_states", ())):
            with app.app_context():
                limiter.engine.close()
