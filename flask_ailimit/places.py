"""Where in the code an error came up. A log gets this and the error's type: its text may hold a key or a prompt."""

from traceback import StackSummary, walk_tb


def places_of(error: BaseException) -> str:
    """Files and lines, from the first below our call to the one that raised."""
    places = StackSummary.extract(walk_tb(error.__traceback__), lookup_lines=False)
    return ", ".join(f"{place.filename}:{place.lineno}" for place in places[1:])
