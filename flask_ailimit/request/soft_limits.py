"""Tells the app of limits that a settlement brought above their soft percent."""

from collections.abc import Iterable, Mapping

from flask import Flask

from flask_ailimit.engine import Verdict
from flask_ailimit.signals import soft_limit_passed, tell

_NOBODY = {"role": None, "plan": None, "label": None}


def tell_passed(
    app: Flask, passed: Iterable[Verdict], payers: Mapping[str, Mapping[str, object]], **facts: object
) -> None:
    """Send :data:`flask_ailimit.soft_limit_passed` for each count.

    Args:
        app: The app that settled.
        passed: The counts as they stand.
        payers: Who has limits of a plan, by the hexadecimal subject: ``role``, ``plan`` and ``label``.
        **facts: ``endpoint`` and ``request_id``.
    """
    for verdict in passed:
        quota, subject = verdict.quota, verdict.charge.subject.hex()
        tell(
            soft_limit_passed,
            app,
            unit=quota.unit,
            limit=quota.limit,
            burst=quota.burst,
            period=quota.period,
            name=quota.name,
            soft_percent=quota.soft_percent,
            used=verdict.used,
            remaining=verdict.remaining,
            reset_after=verdict.reset_after,
            subject=subject,
            **{**_NOBODY, **payers.get(subject, {}), **facts},
        )
