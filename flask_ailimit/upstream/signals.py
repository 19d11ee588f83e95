"""What happens to the calls to upstreams, told to who listens. The sender is the :class:`flask_ailimit.Upstream`.

Each signal is sent with ``group``, the group of models, and what is said beside it. None carries a prompt, an answer or
a credential.
"""

import logging
from typing import Any

from blinker import NamedSignal, Namespace

from flask_ailimit.code_places import code_places

_log = logging.getLogger("flask_ailimit")
_events = logging.getLogger("flask_ailimit.upstream")
"""Has a line for each signal, with its facts as attributes of the record. It is not bounded as ``flask_ailimit`` is,
and so it is silent unless its level is INFO."""

_signals = Namespace()

call_waited = _signals.signal("call-waited")
"""A call has waited for its turn, and is sent. With ``seconds``, ``why``, and ``batch``, whether it was a batch's."""

call_retried = _signals.signal("call-retried")
"""A call is sent again. With ``attempt``, the number of the one that failed, ``kind`` and ``status`` of its answer,
``seconds`` until the next, and ``target``, the name of the upstream that it goes to."""

call_given_up = _signals.signal("call-given-up")
"""A call got no answer that helps. With ``why``, ``kind`` and ``status``, and ``attempts``; ``kind`` is None if it was
not sent at all."""

call_settled = _signals.signal("call-settled")
"""A call is settled. With ``model``, ``usage`` (a :class:`flask_ailimit.tokens.Usage`), ``source`` (``reported``,
``counted`` or ``reserved``), ``whole``, whether its answer came to its end, and ``seconds`` that it took."""

breaker_changed = _signals.signal("breaker-changed")
"""This process has seen that calls are stopped, tried again, or let through again. With ``state``: ``open``,
``half-open`` or ``closed``, and ``status``, that of the answer which stopped them (0 for none)."""

upstream_paused = _signals.signal("upstream-paused")
"""An answer stops all calls of a group. With ``seconds`` and ``status``."""

cache_looked = _signals.signal("cache-looked")
"""The cache was asked. With ``hit``: whether it had the answer."""

retries_spiked = _signals.signal("retries-spiked")
"""In the last minute more than a fifth of this process's calls were retries, at least five. With ``retries``,
``calls``. Sent at most once a minute."""


def tell(signal: NamedSignal, sender: Any, **facts: Any) -> None:
    """Send a signal, and log it. If a receiver raises, that is logged, and nothing changes for the call."""
    if _events.isEnabledFor(logging.INFO):
        said = " ".join(f"{name}={value!r}" for name, value in facts.items())
        _events.info("%s upstream=%s %s", signal.name, sender.name, said, extra={"upstream": sender.name, **facts})
    for receiver in signal.receivers_for(sender) if signal.receivers else ():
        try:
            receiver(sender, **facts)
        except Exception as error:  # noqa: BLE001  any: it is the app's function
            _log.error("A receiver of %s raised %s at %s", signal.name, type(error).__name__, code_places(error))
