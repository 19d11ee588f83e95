"""Writes ``docs/reference.md`` from the code: every public name, its signature, and its first sentence.

The code is read and not imported, so that the page is the same under every version of Python.
Run it with ``make reference``.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
WIDTH = 118

MODULES = {
    "flask_ailimit": "configuration.md",
    "flask_ailimit.engine": "decision.md#without-flask",
    "flask_ailimit.tokens": "tokens.md",
    "flask_ailimit.money": "budgets.md",
    "flask_ailimit.headers": "headers.md",
    "flask_ailimit.upstream": "upstreams.md",
    "flask_ailimit.testing": "testing.md",
}
"""The public modules, each with the page that explains those of its names that are not below."""

EXPLAINED = {
    "flask_ailimit.UNLIMITED": "configuration.md#decorators",
    "flask_ailimit.AILimiter.limit": "configuration.md#decorators",
    "flask_ailimit.AILimiter.shared_limit": "configuration.md#decorators",
    "flask_ailimit.AILimiter.limit_tokens": "configuration.md#decorators",
    "flask_ailimit.AILimiter.limit_concurrency": "configuration.md#decorators",
    "flask_ailimit.AILimiter.limit_units": "configuration.md#units-of-your-own",
    "flask_ailimit.AILimiter.limit_budget": "plans.md#budgets-and-prices",
    "flask_ailimit.engine.Calendar": "calendars.md",
    "flask_ailimit.TokenLimit": "configuration.md#what-counts-together",
    "flask_ailimit.ConcurrencyLimit": "configuration.md#what-counts-together",
    "flask_ailimit.AILimiter.identify": "plans.md#who-pays",
    "flask_ailimit.AILimiter.limit_by_plan": "plans.md#which-routes",
    "flask_ailimit.AILimiter.admin": "live-changes.md#in-python",
    "flask_ailimit.Admin": "live-changes.md#in-python",
    "flask_ailimit.Caller": "plans.md#who-pays",
    "flask_ailimit.AILimiter.upstream": "upstreams.md",
    "flask_ailimit.AILimiter.upstreams": "upstreams.md#the-settings",
    "flask_ailimit.AppUpstream": "upstreams.md",
    "flask_ailimit.AppUpstream.needed": "upstreams.md#inbound-meets-outbound",
    "flask_ailimit.AppUpstream.refusal": "upstreams.md#inbound-meets-outbound",
    "flask_ailimit.AppUpstream.require_room": "upstreams.md#inbound-meets-outbound",
    "flask_ailimit.Upstream": "upstreams.md#without-flask",
    "flask_ailimit.UpstreamRefused": "upstreams.md#inbound-meets-outbound",
    "flask_ailimit.upstream_refused": "upstreams.md#signals-and-logs",
    "flask_ailimit.upstream.UpstreamSettings": "upstreams.md#the-settings",
    "flask_ailimit.upstream.retry_if_worthwhile": "upstreams.md#only-the-retries",
    "flask_ailimit.upstream.stamina_hook": "upstreams.md#only-the-retries",
    "flask_ailimit.upstream.stop_after_budget": "upstreams.md#only-the-retries",
    "flask_ailimit.upstream.wait_as_told": "upstreams.md#only-the-retries",
    "flask_ailimit.AILimiter.usage": "how-to/usage.md",
    "flask_ailimit.AILimiter.usage_view": "how-to/usage.md",
    "flask_ailimit.AILimiter.usage_page_view": "how-to/settlements.md#usage-pages",
    "flask_ailimit.InheritedLimit": "how-to/usage.md#where-a-value-was-set",
    "flask_ailimit.LimitSource": "how-to/usage.md#where-a-value-was-set",
    "flask_ailimit.LimitUsage": "how-to/usage.md#the-answer",
    "flask_ailimit.UsageReport": "how-to/usage.md#in-python-and-on-the-command-line",
    "flask_ailimit.Change": "live-changes.md#in-python",
    "flask_ailimit.ChangeError": "live-changes.md#in-python",
    "flask_ailimit.Payer": "plans.md#who-pays",
    "flask_ailimit.AILimiter.record_usage": "tokens.md#what-a-request-used",
    "flask_ailimit.AILimiter.metering": "configuration.md#how-an-answer-is-read",
    "flask_ailimit.AILimiter.hand_over": "background-work.md",
    "flask_ailimit.AILimiter.take_over": "background-work.md",
    "flask_ailimit.AILimiter.client_gone": "streams.md#hearing-that-the-client-has-left",
    "flask_ailimit.AILimiter.request_id": "headers.md#request-ids",
    "flask_ailimit.AILimiter.client_request_id": "headers.md#request-ids",
    "flask_ailimit.AILimiter.engine": "decision.md#without-flask",
    "flask_ailimit.Decision": "decision.md#the-words",
    "flask_ailimit.HandOverError": "background-work.md",
    "flask_ailimit.LimiterUnavailable": "headers.md#the-503-the-store-is-away",
    "flask_ailimit.QuotaExceeded": "headers.md#handlers-of-the-app",
    "flask_ailimit.StoreError": "stores.md",
    "flask_ailimit.Usage": "tokens.md",
    "flask_ailimit.Verdict": "decision.md#the-words",
    "flask_ailimit.api_key": "configuration.md#who-is-limited",
    "flask_ailimit.api_key_in": "configuration.md#who-is-limited",
    "flask_ailimit.remote_address": "configuration.md#who-is-limited",
    "flask_ailimit.request_refused": "configuration.md#signals",
    "flask_ailimit.soft_limit_passed": "how-to/nearly-used-up.md#the-event",
    "flask_ailimit.store_changed": "redis.md#when-redis-is-away",
    "flask_ailimit.usage_settled": "configuration.md#signals",
    "flask_ailimit.engine.ALGORITHMS": "decision.md#the-algorithms",
    "flask_ailimit.engine.Algorithm": "decision.md#the-algorithms",
    "flask_ailimit.engine.Charge": "decision.md#the-words",
    "flask_ailimit.engine.HandedOver": "decision.md#work-that-outlives-its-reservation",
    "flask_ailimit.engine.Quota": "decision.md#the-words",
    "flask_ailimit.engine.Reservation": "decision.md#the-words",
    "flask_ailimit.engine.Settled": "stores.md#a-store-of-your-own",
    "flask_ailimit.engine.StateStore": "stores.md#a-store-of-your-own",
    "flask_ailimit.engine.Store": "stores.md#a-store-of-your-own",
    "flask_ailimit.engine.open_store": "stores.md",
    "flask_ailimit.engine.parse_quotas": "decision.md#periods",
    "flask_ailimit.headers.exposed_names": "headers.md#browsers-cors",
    "flask_ailimit.testing.HOSTILE_HEADERS": "testing-against-faults.md#hostile-headers",
    "flask_ailimit.testing.Call": "testing-against-faults.md#what-came",
    "flask_ailimit.testing.FakeProvider": "testing-against-faults.md",
    "flask_ailimit.testing.Fault": "testing-against-faults.md#the-faults",
    "flask_ailimit.testing.StoreContract": "stores.md#a-store-of-your-own",
    "flask_ailimit.testing.limits_clock": "testing.md#time",
    "flask_ailimit.tokens.COUNTERS": "tokens.md#counters",
    "flask_ailimit.tokens.TokenCounter": "tokens.md#counters",
    "flask_ailimit.tokens.open_counter": "tokens.md#counters",
    "flask_ailimit.tokens.read_usage": "tokens.md#what-a-request-used",
}
"""The pages that explain single names."""

_OF_TARGETS = (
    *("budget", "counted", "gave_up", "group", "group_named", "held_up", "let_through", "named_fallbacks", "peek"),
    *("cache", "hit", "settled", "tenant", "waited", "wall"),
)

NOT_FOR_APPS = {
    "AILimiter": (
        *("app_state", "engine_of_calls", "ledger", "ledger_of_calls", "note_decided", "settlements", "state_of_calls"),
    ),
    "AppUpstream": (*_OF_TARGETS, "counter"),
    "Upstream": _OF_TARGETS,
    "UpstreamSettings": ("group_of", "kept", "paced", "quotas", "slots", "wrong"),
    "Reservation": ("asked", "begin_to_end", "decided", "released", "settlements", "store", "taken"),
}
"""Methods and properties without an underscore that only other files of the package use."""

HEAD = """# Every public name

This page lists what an app may import, with its signature and the first sentence of its docstring. Each name leads to
the page that explains it. `make reference` writes this page from the code, and a test compares the two.
Names that are not here may change without notice.
"""

_OPTIONS = re.compile(r"Unpack\[(\w+)\]")


class Found(NamedTuple):
    """A name's definition, its docstring, and the file in which it stands."""

    node: ast.stmt
    docstring: str
    file: Path


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(module) for module in MODULES)


def _section(module: str) -> str:
    text = f"\n## {module}\n"
    for name in sorted(exported(module), key=str.lower):
        found = find(_file_of(module), name)
        text += f"\n### {_heading(module, name)}\n\n"
        first = next(each for each in MODULES if name in exported(each))
        if first != module:
            text += f"The same as [{_heading(first, name)}](#{_heading(first, name).replace('.', '').lower()}).\n"
            continue
        place = EXPLAINED.get(f"{module}.{name}", MODULES[module])
        text += f"{_wrapped(f'`{signature(found, name)}`')}\n\n{_wrapped(_said(found) + _see(place))}\n"
        for member in members(found, name):
            place = EXPLAINED.get(f"{module}.{name}.{member.node.name}")
            written = f"- `{signature(member, member.node.name)}`"
            text += f"\n{_wrapped(written, '  ')}\n\n{_wrapped('  ' + _said(member) + _see(place), '  ')}\n"
    return text


def exported(module: str) -> list[str]:
    """The names in ``__all__`` of a module."""
    (names,) = [
        ast.literal_eval(node.value)
        for node in _tree(_file_of(module)).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return names


def _heading(module: str, name: str) -> str:
    return f"{module.partition('.')[2]}.{name}".removeprefix(".")


def _said(found: Found) -> str:
    if not found.docstring:
        raise LookupError(f"{found.file}, line {found.node.lineno}: a public name needs a docstring")
    bases = _shown_bases(found) if isinstance(found.node, ast.ClassDef) else []
    return first_sentence(found.docstring) + (f" Inherits from {' and '.join(bases)}." if bases else "")


def _see(place: str | None) -> str:
    return f" See [{place.partition('#')[0].removesuffix('.md')}]({place})." if place else ""


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def first_sentence(docstring: str) -> str:
    """The first sentence, without the marks of reStructuredText."""
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:!?])\s+(?=[A-Z`])", paragraph)[0]
    sentence = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", sentence)
    sentence = sentence.replace("``", "`")
    return sentence if sentence.endswith(".") else sentence.rstrip(":") + "."


def signature(found: Found, name: str) -> str:
    """A name with its parameters and what it returns."""
    node = found.node
    if isinstance(node, ast.FunctionDef):
        if "property" in _decorators(node):
            return f"{name}: {ast.unparse(node.returns)}" if node.returns else name
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{name}({_parameters(node, found.file)}){returns}"
    if isinstance(node, ast.ClassDef):
        return f"class {name}({_fields(found)})".removesuffix("()")
    if isinstance(node, ast.AnnAssign):
        kind = ast.unparse(node.annotation)
        shown = "" if node.value is None or not _is_short(node.value) else f" = {ast.unparse(node.value)}"
        return f"{name}: {kind}{shown}" if kind != "Final" or not shown else f"{name}{shown}"
    assert isinstance(node, ast.Assign)
    return f"{name} = {ast.unparse(node.value)}" if _is_short(node.value) else name


def find(file: Path, name: str) -> Found:
    """The definition of a name that a file defines or imports."""
    body = _tree(file).body
    statements = [inner for node in body for inner in (node.body if isinstance(node, ast.If) else [node])]
    for place, node in enumerate(statements):
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return find(_imported(file, node), name)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return Found(node, ast.get_docstring(node) or "", file)
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if name in map(ast.unparse, targets):
            said = statements[place + 1] if place + 1 < len(statements) else None
            is_text = isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant)
            return Found(node, str(said.value.value) if is_text else "", file)
    raise LookupError(f"{file} has no {name}")


def members(found: Found, name: str) -> list[Found]:
    """The public methods and properties of a class and of what it inherits in the package, in the order of the code."""
    if not isinstance(found.node, ast.ClassDef):
        return []
    by_name: dict[str, Found] = {}
    for each in [*_bases(found), found]:
        assert isinstance(each.node, ast.ClassDef)
        for node in each.node.body:
            for inner in node.body if isinstance(node, ast.If) else [node]:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith(("_", "test_")):
                    told = ast.get_docstring(inner)
                    if told and not any(mark.endswith((".setter", "fixture")) for mark in _decorators(inner)):
                        by_name[inner.name] = Found(inner, told, each.file)
    return [each for each in by_name.values() if each.node.name not in NOT_FOR_APPS.get(name, ())]


def _bases(found: Found) -> Iterator[Found]:
    """The classes of the package from which a class inherits."""
    for base in map(ast.unparse, found.node.bases):
        try:
            inherited = find(found.file, base)
        except (LookupError, FileNotFoundError):  # It is another package's.
            continue
        yield from _bases(inherited)
        yield inherited


def _shown_bases(found: Found) -> list[str]:
    """The names of the classes of other packages, and of those that are public here, from which a class inherits."""
    public = {name for module in MODULES for name in exported(module)}
    shown: list[str] = []
    for base in map(ast.unparse, found.node.bases):
        try:
            inherited = find(found.file, base)
        except (LookupError, FileNotFoundError):
            shown += [f"`{base}`"] if base not in ("ABC", "Protocol", "NamedTuple") else []
        else:
            shown += [f"`{base}`"] if base in public else _shown_bases(inherited)
    return shown


def _fields(found: Found) -> str:
    assert isinstance(found.node, ast.ClassDef)
    node = found.node
    made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__new__")]
    if made:
        return _parameters(made[0], found.file)
    is_record = "NamedTuple" in map(ast.unparse, node.bases) or any("dataclass" in each for each in _decorators(node))
    if not is_record:
        return "".join(_fields(each) for each in _bases(found) if each.node.name.startswith("_"))
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and "init=False" not in ast.unparse(each)]
    return ", ".join(_parameter(ast.unparse(each.target), each.annotation, each.value) for each in fields)


def _parameter(name: str, annotation: ast.expr | None, default: ast.expr | None) -> str:
    written = f"{name}: {ast.unparse(annotation)}" if annotation else name
    if default is None:
        return written
    value = ast.unparse(default)
    return f"{written} = {'...' if value.startswith(('_', 'field(')) else value}"


def _parameters(node: ast.FunctionDef, file: Path) -> str:
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + given.defaults
    written = [
        _parameter(each.arg, each.annotation, default)
        for each, default in zip(plain, defaults, strict=True)
        if each.arg not in ("self", "cls")
    ]
    named = [
        _parameter(each.arg, each.annotation, default)
        for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    if given.vararg:
        written.append("*" + _parameter(given.vararg.arg, given.vararg.annotation, None))
    if given.kwarg:
        options = _OPTIONS.fullmatch(ast.unparse(given.kwarg.annotation)) if given.kwarg.annotation else None
        if options:
            named += [f"{name}: {kind} = ..." for name, kind in _options(find(file, options[1]))]
    star = ["*"] if named and not given.vararg else []
    rest = [f"**{_parameter(given.kwarg.arg, given.kwarg.annotation, None)}"] if given.kwarg and not options else []
    return ", ".join([*written, *star, *named, *rest])


def _options(found: Found) -> Iterator[tuple[str, str]]:
    """The names and types of the options that a TypedDict lists."""
    assert isinstance(found.node, ast.ClassDef)
    for base in map(ast.unparse, found.node.bases):
        if base != "TypedDict":
            yield from _options(find(found.file, base))
    for node in found.node.body:
        if isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target), ast.unparse(node.annotation)


def _decorators(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    return [ast.unparse(each) for each in node.decorator_list]


def _is_short(node: ast.expr) -> bool:
    return not isinstance(node, ast.Call | ast.Dict) and len(ast.unparse(node)) < 60


def _imported(file: Path, node: ast.ImportFrom) -> Path:
    module = node.module or ""
    if node.level:
        folder = file.parent
        for _ in range(node.level - 1):
            folder = folder.parent
        return _in_folder(folder, module)
    return _file_of(module)


def _file_of(module: str) -> Path:
    return _in_folder(ROOT, module)


def _in_folder(folder: Path, module: str) -> Path:
    path = folder.joinpath(*module.split(".")) if module else folder
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
