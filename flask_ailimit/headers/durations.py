"""Microseconds as clients read them. Always rounded up: who waits what he was told is never early."""

from flask_ailimit.engine.clock import MICROSECONDS

_MILLISECONDS = 1000


def seconds_up(us: int) -> int:
    """Whole seconds that hold ``us`` microseconds."""
    return -(-us // MICROSECONDS)


def milliseconds_up(us: int) -> int:
    """Whole milliseconds that hold ``us`` microseconds."""
    return -(-us * _MILLISECONDS // MICROSECONDS)


def go_duration(us: int) -> str:
    """Write ``us`` microseconds as OpenAI does: ``0s``, ``12ms``, ``8.64s``, ``6m0s``, ``23h47m36.648s``.

    This is the text of Go's ``time.Duration`` in whole milliseconds: leading units that are zero are left
    out, later ones are not, and hours don't turn into days.
    """
    milliseconds = milliseconds_up(us)
    if 0 < milliseconds < _MILLISECONDS:
        return f"{milliseconds}ms"
    seconds, fraction = divmod(milliseconds, _MILLISECONDS)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds}.{fraction:03d}".rstrip("0") + "s" if fraction else f"{seconds}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
