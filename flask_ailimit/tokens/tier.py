"""The tier of service that an answer was given."""

from typing import Any, Final

from .usage import is_tier

TIER_BESIDE: Final = ("service_tier", "serviceTier")
"""Members of an answer, beside its report, with the tier of service that it was given."""
_TIER_INSIDE = ("speed", *TIER_BESIDE, "trafficType", "traffic_type")
_REPORTED_IN = ("usage", "usageMetadata", "usage_metadata")
_AROUND = ("response", "message", "metadata", "result")
_SPEEDS = ("fast",)
_ON_DEMAND = "ON_DEMAND_"


def find_tier(payload: object) -> str:
    """The tier of service that a decoded JSON answer or event names; "" if it names none. Never raises.

    OpenAI (``service_tier``) and Bedrock (``serviceTier.type``) name it beside the usage, Anthropic (``service_tier``,
    ``speed``) and Google (``trafficType``) in it. Google's begin with ``ON_DEMAND_``, which is left out.
    """
    if not isinstance(payload, dict):
        return ""
    around = [payload, *(payload[name] for name in _AROUND if isinstance(payload.get(name), dict))]
    for each in around:
        for name in _REPORTED_IN:
            if isinstance(each.get(name), dict):
                tier = _tier_in(each[name], _TIER_INSIDE)
                if tier:
                    return tier
    return next(filter(None, map(tier_beside, around)), "")


def tier_beside(node: dict[str, Any]) -> str:
    """The tier of service that an object names for itself, beside its report; "" if it names none."""
    return _tier_in(node, TIER_BESIDE)


def _tier_in(node: dict[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = node.get(name)
        if isinstance(value, dict):
            value = value.get("type")
        # Anthropic's speed is a second price beside the tier, where it isn't the usual one.
        if value and is_tier(value) and (name != "speed" or value in _SPEEDS):
            return str(value).removeprefix(_ON_DEMAND)
    return ""
