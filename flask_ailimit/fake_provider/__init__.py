"""A provider of AI models on this machine, which answers over a real socket and fails to order. For tests only.

It needs neither Flask nor an SDK. Tests import it from :mod:`flask_ailimit.testing`.
"""

from .call import Call
from .fault import HOSTILE_HEADERS, Fault
from .provider import FakeProvider

__all__ = ["HOSTILE_HEADERS", "Call", "FakeProvider", "Fault"]
