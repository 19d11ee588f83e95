"""LiteLLM's limits of budgets, keys, teams and users.

Format: what ``/budget/info``, ``/budget/list``, ``/key/info``, ``/key/list``, ``/team/info`` and ``/user/info``
return, and what ``/budget/new`` and ``/key/generate`` take, https://docs.litellm.ai/docs/proxy/users
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from flask_ailimit.engine.quota import REQUESTS, TOKENS

from .drafts import Draft, literally
from .names import Names, as_name
from .values import Entry, said, shown

_LIMITS = {"rpm_limit": (REQUESTS, "minute"), "tpm_limit": (TOKENS, "minute"), "tpd_limit": (TOKENS, "day")}
_OF_MODELS = {"model_rpm_limit": (REQUESTS, "minute"), "model_tpm_limit": (TOKENS, "minute")}
_IN_FLIGHT = "max_parallel_requests"
_BUDGET, _METADATA = "litellm_budget_table", "metadata"
_OF_BUDGET = (*_LIMITS, *_OF_MODELS, _IN_FLIGHT, "max_budget", "soft_budget", "model_max_budget")
_KNOWN = (*_OF_BUDGET, "budget_id")
WRAPPERS = ("info", "team_info", "user_info")
_OF_KEY = ("token", "key", "key_name", "key_alias")
_OF_OTHERS = ("team_id", "team_alias", "user_id", "organization_id", "organization_alias")
_LIMITING = re.compile(r"limit|budget|parallel|\Ablocked\Z|\Aexpires\Z|\Aduration\Z")
_NAMING = ("budget_id", _BUDGET)
_ALL = ("*", "all-proxy-models", "all-team-models")
_NONE = "no-default-models"
_WILD = re.compile(r"[?[]")


def unwrapped(entry: Entry) -> Entry:
    """The object that has the limits: ``/key/info`` and others return it inside another one."""
    return next((inner for field in WRAPPERS if (inner := entry.entry(field))), entry)


def is_litellm(entries: Sequence[Entry]) -> bool:
    """Whether they are LiteLLM's objects with limits."""
    return all(any(field in each for field in (*_KNOWN, _BUDGET)) for each in entries)


def from_litellm(entries: Sequence[Entry], name: str | None) -> list[Draft]:
    """A plan for each object. Those that are the same, name included, are one.

    Args:
        entries: The objects.
        name: What the plan of an object without a name is to be called; None for ``imported``.

    Raises:
        ConfigurationError: A value is wrong, or the budget of a key is not among the objects. In LiteLLM its limits
            hold wherever the key has none.
    """
    names, drafts = Names(), dict[tuple[str, str], Draft]()
    budgets = {each.text("budget_id"): each for each in entries if _is_budget(each)}
    for entry in entries:
        wish = _name_of(entry) or name or "imported"
        plan = Draft(as_name(wish))
        if plan.name != wish:
            plan.remark(f"the name {shown(wish)}")
        _read(plan, entry, _budget_of(entry, budgets))
        same = plan.name, repr(plan)
        if same not in drafts:
            plan.name = names.take(plan.name)
            drafts[same] = plan
    return [*drafts.values()]


def _name_of(entry: Entry) -> str | None:
    """The name of the tier or of its owner. A key is no name, also not in part."""
    fields = ("key_alias", "budget_id") if _has(entry, _OF_KEY) else ("team_alias", "budget_id", "team_id", "user_id")
    return next((text for field in fields if (text := entry.text(field))), None)


def _has(entry: Entry, *fields: Sequence[str]) -> bool:
    return any(each in entry for several in fields for each in several)


def _is_budget(entry: Entry) -> bool:
    return _has(entry, _OF_BUDGET) and not _has(entry, _OF_KEY, _OF_OTHERS)


def _budget_of(entry: Entry, budgets: Mapping[str | None, Entry]) -> Entry | None:
    """The budget of a key or of another owner; None for an object that has none, or is one."""
    name, inside = entry.text("budget_id"), entry.entry(_BUDGET)
    if inside or name is None or _is_budget(entry):
        return inside
    if name not in budgets:
        entry.wrong(
            "budget_id",
            f"the limits of the budget {shown(name)} are not in the JSON, and nobody knows what it limits. Import what "
            "GET /key/info says of one key, or add what GET /budget/list says of the budget to the list",
        )
    return budgets[name]


def _read(plan: Draft, entry: Entry, budget: Entry | None) -> None:
    """Add an object's limits. What a key doesn't say itself, its budget says."""
    counted = [each for each in (entry, budget) if each]
    sources = [each for each in (*counted, entry.entry(_METADATA)) if each]
    for field, (unit, period) in _LIMITS.items():
        plan.limits.add(unit, period, _first(counted, field))
    plan.limits.in_flight = _first(counted, _IN_FLIGHT)
    allowed = _allowed(plan, entry.texts("models"))
    for field, limit in _OF_MODELS.items():
        of_models = next((each for source in sources if (each := source.entry(field))), None)
        for model, _ in of_models.fields() if of_models else ():
            if allowed is None or any(fnmatchcase(model, each) for each in allowed):
                limits = plan.limits_of(literally(model))
                if limits is not None:
                    limits.add(*limit, of_models.amount(model))  # type: ignore[union-attr]  # it has a model
    for pattern in sorted(allowed or (), key=lambda each: "*" in each):  # The first that matches holds.
        plan.limits_of(pattern)
    plan.others = allowed is None
    for source in counted:
        plan.remark(*_others(source))
    if _has(entry, _OF_KEY) and "team_id" in entry:
        plan.remark("the limits of its team, which hold for a key, too")


def _first(sources: Sequence[Entry], field: str) -> int | None:
    return next((amount for source in sources if (amount := source.amount(field)) is not None), None)


def _allowed(plan: Draft, models: Sequence[str]) -> Mapping[str, None] | None:
    """The patterns of the models that are allowed, in their order; None for all."""
    if "all-team-models" in models:
        plan.remark("that only the models of the team are allowed")
    if not models or any(each in _ALL for each in models):
        return None
    return dict.fromkeys(_WILD.sub(lambda sign: f"[{sign[0]}]", each) for each in models if each != _NONE)


def _others(entry: Entry) -> Iterator[str]:
    """Remarks on what else limits in LiteLLM."""
    for field, value in entry.fields():
        if field in (*_LIMITS, *_OF_MODELS, _IN_FLIGHT, *_NAMING) or not _LIMITING.search(field):
            continue
        if value or type(value) in (int, float):
            yield said(field, value)
