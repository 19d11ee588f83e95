"""OpenAI's rate limits of a project.

Format: ``GET /v1/organization/projects/{project_id}/rate_limits``,
https://platform.openai.com/docs/api-reference/project-rate-limits
"""

from collections.abc import Sequence

from flask_ailimit.engine.quota import REQUESTS, TOKENS

from .drafts import Draft, literally
from .values import Entry, said

_TYPE = "project.rate_limit"
_LIMITS = {
    "max_requests_per_1_minute": (REQUESTS, "minute"),
    "max_requests_per_1_day": (REQUESTS, "day"),
    "max_tokens_per_1_minute": (TOKENS, "minute"),
}
_NAMES = ("object", "id", "model")


def is_openai(entries: Sequence[Entry]) -> bool:
    """Whether they are rate limits of an OpenAI project."""
    return all(each.says("object", _TYPE) for each in entries)


def from_openai(entries: Sequence[Entry], name: str | None) -> list[Draft]:
    """The plan of a project. It has the models that OpenAI lists, and no other.

    Args:
        entries: A rate limit for each model.
        name: What the plan is to be called; None for ``project``.

    Raises:
        ConfigurationError: A value is wrong.
    """
    plan = Draft(name or "project", others=False)
    for entry in entries:
        model = entry.text("model")
        if not model:
            entry.wrong("model", "the name of a model is needed")
        limits = plan.limits_of(literally(model))
        for field, value in entry.fields():
            if limits is not None and field in _LIMITS:
                limits.add(*_LIMITS[field], entry.amount(field))
            elif limits is not None and field not in _NAMES:
                limits.remarks.append(said(field, value))
    return [plan]
