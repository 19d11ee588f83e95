"""The code blocks of README and the pages, as Sybil finds them, and how they are run.

A page is run from top to bottom, in a directory and with a namespace of its own:

- ``python`` is executed. A block that begins with ``# shop.py`` is written to this file, which later blocks can import.
- ``sh`` is run by bash, with this interpreter's ``python``, ``flask`` and ``pytest``. Later blocks see what it exports.
- ``text`` after one of these shows what it printed; ``...`` stands for anything. Nothing else may be printed or logged.
- ``json``, ``toml``, ``ini`` and ``http`` are parsed. A ``toml`` block that begins with ``# plans.toml`` is written to
  this file.
"""

import configparser
import contextlib
import doctest
import io
import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import parse_headers
from pathlib import Path
from types import ModuleType
from typing import Any

from flask import Flask
from sybil import Example, Region, Sybil
from sybil.document import Document
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from flask_ailimit import AILimiter

ROOT = Path(__file__).parents[1]
PAGES = tuple(
    str(file.relative_to(ROOT))
    for file in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
)

_FILE = re.compile(r"# ([\w/]+\.py)\n")
_TOML_FILE = re.compile(r"# ([\w/]+\.toml)\n")
_COMMANDS = ("flask", "pytest")


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language or 'no language'})"


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The blocks of a page, in their order, of one language or of all."""
    return [block for block in map(_block, _parsed(page).examples()) if language is None or block.language == language]


def texts(page: str, language: str) -> list[str]:
    """What the blocks of one language say."""
    return [block.text for block in blocks(page, language)]


def run_page(
    page: str,
    directory: Path,
    given: Mapping[str, Any] = {},
    *,
    leave_out: Callable[[Block], bool] = lambda _: False,
) -> dict[str, Any]:
    """Run the blocks of a page and return its namespace.

    Args:
        page: Its path from the root of the project.
        directory: Where it runs; new for each page.
        given: What the page takes for granted: names that its blocks use and don't define.
        leave_out: Whether a block is run by another test, or can't be run.

    Raises:
        AssertionError: Something was printed or logged that the page doesn't show, or a block could not be run.
        Exception: Whatever a block raised.
    """
    document = _parsed(page)
    with _module_of(page, directory) as module, contextlib.chdir(directory):
        vars(module).update(given)
        document.namespace = vars(module)
        printed, by = "", None
        for example in document.examples():
            block = _block(example)
            if block.language == "text" and printed:
                assert _shows(block.text, printed), f"{block} shows something else than was printed:\n{printed}"
                printed = ""
                continue
            assert not printed, f"{by} printed or logged what the page doesn't show:\n{printed}"
            if not leave_out(block):
                printed, by = _run(example, block, directory), block
        assert not printed, f"{by} printed or logged what the page doesn't show:\n{printed}"
        unused = [name for name in _files(page, leave_out) if not _was_imported(directory, name)]
        assert not unused, f"{page}: no block imports {unused}, so nothing runs them"
        return document.namespace


def _parsed(page: str) -> Document:
    return Sybil(parsers=[_all_blocks]).parse(ROOT / page)


def _all_blocks(document: Document) -> Iterator[Region]:
    for region in RawFencedCodeBlockLexer(re.compile(r"(?P<language>[^\n]*)\n"))(document):
        region.parsed = region.lexemes["source"]
        region.evaluator = _EVALUATORS.get(region.lexemes["language"].strip(), _cannot_run)
        yield region


def _block(example: Example) -> Block:
    page = str(Path(example.path).relative_to(ROOT))
    return Block(page, example.line, example.region.lexemes["language"].strip(), str(example.parsed))


def _files(page: str, leave_out: Callable[[Block], bool]) -> list[str]:
    found = [_FILE.match(block.text) for block in blocks(page, "python") if not leave_out(block)]
    return [match[1] for match in found if match]


def _was_imported(directory: Path, name: str) -> bool:
    """Whether this process, or one that a block started, has imported a file."""
    file = directory / name
    here = any(getattr(module, "__file__", None) == str(file) for module in [*sys.modules.values()])
    return here or any((file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"))


@contextlib.contextmanager
def _module_of(page: str, directory: Path) -> Iterator[ModuleType]:
    """A module for the page, so that Flask finds its folder. What the page imports from there is forgotten after it."""
    module = ModuleType(f"page_{Path(page).stem.replace('-', '_').lower()}")
    module.__file__ = str(directory / f"{module.__name__}.py")
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(directory))
    try:
        yield module
    finally:
        sys.path.remove(str(directory))
        for name, loaded in [*sys.modules.items()]:
            if str(getattr(loaded, "__file__", "")).startswith(str(directory)):
                _end_apps_of(loaded)
                del sys.modules[name]


def _end_apps_of(module: ModuleType) -> None:
    """End what runs for the apps of a module: else an app that waits to be collected logs while another page runs."""
    apps = [each for each in vars(module).values() if isinstance(each, Flask)]
    limiters = [each for each in vars(module).values() if isinstance(each, AILimiter)]
    for app in apps:
        for limiter in limiters:
            if app in limiter._states:
                limiter._states[app].engine.close()


def _run(example: Example, block: Block, directory: Path) -> str:
    """Run a block and return what it printed and what it logged as a warning or worse."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            example.evaluate()
    except Exception as error:
        error.add_note(f"in {block}")
        raise
    finally:
        logging.getLogger().removeHandler(handler)
    return output.getvalue()


def _shows(shown: str, printed: str) -> bool:
    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"

    return doctest.OutputChecker().check_output(tidy(shown), tidy(printed), doctest.ELLIPSIS)


def _python(example: Example) -> None:
    named = _FILE.match(example.parsed)
    if named is None:
        PythonEvaluator()(example)
        return
    file = Path(named[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(example.parsed, encoding="utf-8")
    compile(example.parsed, str(file), "exec")


def _sh(example: Example) -> None:
    place = Path.cwd() / ".shell"
    place.mkdir(exist_ok=True)
    for command in ("python", *_COMMANDS):
        module = "" if command == "python" else f"-m {command} "
        (place / command).write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n', encoding="utf-8")
        (place / command).chmod(0o755)
    exported = place / "exported"
    exported.touch()
    ran = subprocess.run(
        ["bash", "-euc", f". {exported}\n{example.parsed}\nexport -p > {exported}"],
        env={
            **os.environ,
            "PATH": f"{place}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    sys.stdout.write(ran.stdout)


def _toml(example: Example) -> None:
    tomllib.loads(example.parsed)
    named = _TOML_FILE.match(example.parsed)
    if named is not None:
        Path(named[1]).write_text(example.parsed, encoding="utf-8")


def _http(example: Example) -> None:
    """Headers, perhaps after a line of a request or of a status, perhaps before a body."""
    head, *_ = example.parsed.strip().split("\n\n")
    lines = head.splitlines()
    if ":" not in lines[0].split(" ")[0]:
        first = lines.pop(0)
        assert re.fullmatch(r"HTTP/1\.1 \d{3} .+|[A-Z]+ \S+( HTTP/1\.1)?", first), f"no header: {first}"
    parsed = parse_headers(io.BytesIO("".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"))
    assert len(parsed.items()) == len(lines)
    assert not parsed.defects


def _cannot_run(example: Example) -> None:
    language = example.region.lexemes["language"].strip()
    raise AssertionError(f"nothing can run a block of {language or 'no language'}: list it, with the reason")


_EVALUATORS: dict[str, Callable[[Example], None]] = {
    "python": _python,
    "sh": _sh,
    "json": lambda example: json.loads(example.parsed) and None,
    "toml": _toml,
    "ini": lambda example: configparser.ConfigParser().read_string(example.parsed),
    "http": _http,
}
