"""Every error the library raises.

::

    AILimitError
    ├── ConfigurationError (ValueError)   at construction or ``init_app``; the message says the fix
    └── StoreError                        the store could not answer; ``transient`` says whether to try again

A refusal is not an error: the engine returns it as a decision.
"""


class AILimitError(Exception):
    """The root of this library's errors."""


class ConfigurationError(AILimitError, ValueError):
    """A setting is wrong. The message names it, shows what was given, and says what to write instead."""


class StoreError(AILimitError):
    """The store could not read or write.

    ``transient`` is true when the same call may succeed later (a full disk, a lost connection), false when
    somebody must act first (a directory with the wrong owner).
    """

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient
