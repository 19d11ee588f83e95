"""Anthropic's rate limits of an organization, or of its workspaces.

Format: ``GET /v1/organizations/rate_limits`` and ``GET /v1/organizations/workspaces/{workspace_id}/rate_limits``,
https://platform.claude.com/docs/en/api/admin
"""

from collections.abc import Iterable, Sequence
from os.path import commonprefix
from typing import NamedTuple

from flask_ailimit.engine.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS

from .drafts import Draft, Limits, literally
from .names import Names
from .values import Entry, said, shown

ORGANIZATION = "organization"
_OF_ORGANIZATION, _OF_WORKSPACE = "rate_limit", "workspace_rate_limit"
_CACHE_AWARE = "input_tokens_per_minute_cache_aware"
_LIMITS = {
    "requests_per_minute": (REQUESTS, "minute"),
    "input_tokens_per_minute": (INPUT_TOKENS, "minute"),
    _CACHE_AWARE: (INPUT_TOKENS, "minute"),
    "output_tokens_per_minute": (OUTPUT_TOKENS, "minute"),
    "tokens_per_minute": (TOKENS, "minute"),
    "tokens_per_day": (TOKENS, "day"),
}


class _Group(NamedTuple):
    """Models that share counts, as one plan has them."""

    models: Sequence[str]
    limits: Limits


def is_anthropic(entries: Sequence[Entry]) -> bool:
    """Whether they are rate limits of Anthropic."""
    return all(each.says("type", _OF_ORGANIZATION, _OF_WORKSPACE) for each in entries)


def from_anthropic(entries: Sequence[Entry], name: str | None) -> list[Draft]:
    """The plans of the organization and of its workspaces.

    A workspace's limits apply beside those of its organization, so each is a plan, for a payer in a role of its own.

    Args:
        entries: The limits, an entry for each group of models.
        name: What the plan of the organization is to be called; None for ``organization``.

    Raises:
        ConfigurationError: A value is wrong.
    """
    names = Names()
    organization = Draft(names.take(name or ORGANIZATION))
    workspaces: dict[str, Draft] = {}
    groups: dict[str, list[_Group]] = {}
    for entry in entries:
        plans = {ORGANIZATION: organization}
        if entry.says("type", _OF_WORKSPACE):
            workspace = entry.text("workspace_id") or "workspace"
            if workspace not in workspaces:
                workspaces[workspace] = Draft(names.take(workspace))
            plans["workspace"] = workspaces[workspace]
        else:
            organization.others = False  # The list has all models of the organization.
        _read(entry, plans, groups)
    found = [organization, *workspaces.values()]
    for plan in found:
        _add_models(plan, groups.get(plan.name, []))
    return [plan for plan in found if plan.models or plan.limits.remarks]


def _read(entry: Entry, plans: dict[str, Draft], groups: dict[str, list[_Group]]) -> None:
    """Add the limits of an entry to the plans that they belong to."""
    limits = {level: Limits() for level in plans}
    for each in entry.entries("limits"):
        if "workspace" not in plans:
            _add(limits[ORGANIZATION], each, "value")
            continue
        _add(limits[ORGANIZATION], each, "org_limit")
        source = each.entry("source")
        if source is None or not source.says("type", ORGANIZATION):
            _add(limits["workspace"], each, "value")
    group = entry.entry("group")
    kind = (group and group.text("type")) or "model_group"
    models = list(dict.fromkeys(entry.texts("models")))
    for level, plan in plans.items():
        if kind == "model_group" and models:
            if limits[level].amounts or limits[level].remarks or not plan.others:
                groups.setdefault(plan.name, []).append(_Group(models, limits[level]))
        else:
            plan.remark(*(f"group {shown(kind)}: {each}" for each in _in_words(limits[level])))


def _add(limits: Limits, entry: Entry, field: str) -> None:
    kind, amount = entry.text("type"), entry.amount(field)
    if kind is None:
        entry.wrong("type", "the type of a limit is needed, such as 'requests_per_minute'")
    if amount is None:
        return
    if kind not in _LIMITS:
        limits.remarks.append(said(kind, amount))
        return
    if kind == _CACHE_AWARE:
        limits.remarks.append(f"{kind}: that reads from the cache are free. Here they count as input")
    limits.add(*_LIMITS[kind], amount)


def _in_words(limits: Limits) -> Iterable[str]:
    return [*(f"{amount} {unit} a {period}" for (unit, period), amount in limits.amounts.items()), *limits.remarks]


def _add_models(plan: Draft, groups: list[_Group]) -> None:
    """Add the groups to a plan, each as one pattern if that can be: the models of a pattern share their counts."""
    found = [*zip(groups, _beginnings(groups), strict=True)]
    for group, beginning in found:
        if not beginning:
            _add_group(plan, group, [literally(model) for model in group.models])
    for group, beginning in sorted(found, key=lambda each: -len(each[1])):  # The first that matches holds.
        if beginning:
            _add_group(plan, group, [f"{literally(beginning)}*"])


def _add_group(plan: Draft, group: _Group, patterns: Sequence[str]) -> None:
    for name in patterns:
        limits = plan.limits_of(name)
        if limits is None:
            continue
        for (unit, period), amount in group.limits.amounts.items():
            limits.add(unit, period, amount)
        limits.remarks += group.limits.remarks
        if len(patterns) > 1:
            limits.remarks.append(f"that this model shares its counts with {len(patterns) - 1} others of its group")


def _beginnings(groups: Sequence[_Group]) -> list[str]:
    """For each group the beginning that its models have in common; "" if no pattern can be made of it.

    Models that stand alone come first in the plan, and then the longest beginning. So a group can have its own if no
    model of a group with a shorter one begins so, too.
    """
    beginnings = [
        commonprefix([*group.models]) if len(group.models) > 1 else ""  # noqa: RUF071  names, and no paths
        for group in groups
    ]
    found = []
    for group, beginning in zip(groups, beginnings, strict=True):
        later = [
            model
            for other, its in zip(groups, beginnings, strict=True)
            if other is not group and 0 < len(its) <= len(beginning)
            for model in other.models
        ]
        found.append("" if any(model.startswith(beginning) for model in later) else beginning)
    return found
