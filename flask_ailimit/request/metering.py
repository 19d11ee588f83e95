"""What a view says about its requests and answers: :meth:`flask_ailimit.AILimiter.metering`."""

from typing import NamedTuple

from flask import Flask

_METERING = "__flask_ailimit_metering__"


class Metering(NamedTuple):
    """How to read the requests and answers of a view.

    Attributes:
        ends_with_body: Only the end of the body ends an answer, not an event in it.
        recorded_only: The usage that an answer reports is not believed, because a model may have written it.
        default_output_tokens: Output to reserve for a request that names no maximum; None for that of the setting.
    """

    ends_with_body: bool = False
    recorded_only: bool = False
    default_output_tokens: int | None = None

    @property
    def is_usual(self) -> bool:
        """Whether an answer is read as that of a view that says nothing."""
        return not (self.ends_with_body or self.recorded_only)


USUAL = Metering()
"""The metering of a view that says nothing."""


def set_metering(view: object, metering: Metering) -> None:
    """Set on a view how to read its requests and answers. What an earlier call on the view said holds too."""
    inner: Metering = getattr(view, _METERING, USUAL)
    default = inner.default_output_tokens if metering.default_output_tokens is None else metering.default_output_tokens
    together = Metering(
        inner.ends_with_body or metering.ends_with_body, inner.recorded_only or metering.recorded_only, default
    )
    setattr(view, _METERING, together)


def metering_of(app: Flask, endpoint: str | None) -> Metering:
    """How to read the requests and answers of an endpoint's view."""
    metering: Metering = getattr(app.view_functions.get(endpoint or ""), _METERING, USUAL)
    return metering
