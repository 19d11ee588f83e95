"""The usage that a model server reports in its JSON answers and events.

Each row of :data:`.report_shapes.SHAPES` is one shape of a report. A member that is null is one that is not there; a
number that is negative, fractional or otherwise absurd makes the whole report worthless.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .report_shapes import CACHED, MOST_ITEMS, SHAPES, WRITTEN, WRITTEN_1H, Shape
from .tier import find_tier
from .usage import MAX_TOKENS, Usage

_PLACES: Final[dict[str, list[tuple[Shape, str]]]] = {}
"""Each place of each shape, by the names of which the answer or event must have one: most have none."""

for _shape in SHAPES:
    for _place in _shape.places:
        for _name in [_place.partition(".")[0]] if _place else _shape.members:
            _PLACES.setdefault(_name, []).append((_shape, _place))

FIRST_MEMBERS: Final = frozenset(_PLACES)
"""Members of which every answer or event that reports has one."""


class Report(NamedTuple):
    """The numbers of one report; None is what it doesn't say. ``kinds`` are parts, by the field of :class:`Usage`."""

    input: int | None
    output: int | None
    kinds: Mapping[str, int]
    total: int | None


NO_REPORT: Final = Report(None, None, {}, None)

Members = dict[str, int]
"""The numbers of a report, by the names of its shape."""


def find_reports(payload: object) -> dict[Shape, Members]:
    """The members of each shape of report in a decoded JSON answer or event. Empty if there is none. Never raises."""
    if not isinstance(payload, dict):
        return {}
    found: dict[Shape, Members] = {}
    try:
        for name in FIRST_MEMBERS.intersection(payload):
            for shape, place in _PLACES[name]:
                for report in _objects(payload, place):
                    members = _members(shape, report)
                    if members:
                        found[shape] = merged(found.get(shape, {}), members)
        if found:
            said = read_reports(found)
            cached = said.kinds.get(CACHED, 0)
            Usage.checked(cached if said.input is None else said.input, said.output or 0, cached)
    except ValueError:
        return {}
    return found


def merged(older: Members, newer: Mapping[str, int]) -> Members:
    """The largest of each member, since reports within a message are repeated and cumulative."""
    return {name: max(older.get(name, 0), newer.get(name, 0)) for name in {**older, **newer}}


def read_reports(found: dict[Shape, Members]) -> Report:
    """What the reports say together: the largest that any says of each number."""
    said = [_summed(shape, members) for shape, members in found.items()]
    if len(said) == 1:
        return said[0]
    kinds: Members = {}
    for each in said:
        kinds = merged(kinds, each.kinds)
    return Report(
        max((each.input for each in said if each.input is not None), default=None),
        max((each.output for each in said if each.output is not None), default=None),
        kinds,
        max((each.total for each in said if each.total is not None), default=None),
    )


def read_usage(payload: object) -> Usage | None:
    """The usage in a decoded JSON answer, or None if it reports none that can be believed. Never raises.

    A report with a negative, fractional or otherwise absurd number in it is worth nothing as a whole. An explicit
    zero is a report, and so is one that says nothing of the input or of the output. Of a total and its parts the larger
    counts; a total alone is taken for the input, as in answers with embeddings that say nothing else.
    """
    report = read_reports(find_reports(payload))
    if report.input is None and report.output is None and report.total is None:
        return None
    is_whole = report.input is None and report.output is None
    given = report.total if is_whole else report.input
    return Usage.clamped(given or 0, report.output or 0, service_tier=find_tier(payload), **report.kinds)


def _objects(payload: dict[str, Any], place: str) -> list[dict[str, Any]]:
    found: list[Any] = [payload]
    for name in place.split(".") if place else ():
        inner = [node.get(name) for node in found if isinstance(node, dict)]
        found = [item for node in inner for item in (node[:MOST_ITEMS] if isinstance(node, list) else [node])]
        if found == [None]:
            return []
    return [node for node in found if isinstance(node, dict)]


def _members(shape: Shape, report: dict[str, Any]) -> Members:
    named = shape.values_in(report)
    if shape.listed:  # An empty list of tokens was not asked for.
        named = {name: value or None for name, value in named.items()}
    return {name: _count(value, shape) for name, value in named.items() if value is not None}


def _count(value: Any, shape: Shape) -> int:
    if shape.listed and isinstance(value, list):
        return len(value)
    if shape.fractional and type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise ValueError("no number of tokens")
    return value


def _summed(shape: Shape, members: Members) -> Report:
    given = sum(members.get(name, 0) for name in shape.inputs) if shape.inputs[0] in members else None
    outputs = [members[name] for name in shape.outputs if name in members]
    parts = sum(members.get(name, 0) for name in shape.parts)  # Some report reasoning beside the output.
    made = max(sum(outputs), parts) if outputs or parts else None
    total = members.get(shape.total)
    if given is None and made is None and total is None:
        return NO_REPORT  # What its parts were says nothing without the rest.
    if total is not None and given is not None:
        made = max(made or 0, total - given)
    elif total is not None and made is not None:
        given = max(total - made, 0)
    return Report(given, made, _kinds(shape, members), total)


def _kinds(shape: Shape, members: Members) -> Members:
    kinds: Members = {}
    for name, number in members.items():
        kind = shape.kind_of.get(name)
        if kind is not None and number > kinds.get(kind, 0):
            kinds[kind] = number
    if WRITTEN_1H in kinds:
        kinds[WRITTEN] = max(kinds.get(WRITTEN, 0) - kinds[WRITTEN_1H], 0)
    return kinds
