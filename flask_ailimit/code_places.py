"""The places in the code of an error. A log gets them and its type, not its text, which may hold a key or a prompt."""

from traceback import StackSummary, walk_tb


def code_places(error: BaseException) -> str:
    """The files and lines of the error's traceback, without the first, which is ours."""
    places = StackSummary.extract(walk_tb(error.__traceback__), lookup_lines=False)
    return ", ".join(f"{place.filename}:{place.lineno}" for place in places[1:])
