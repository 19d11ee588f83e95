"""Every error the library raises.

::

    AILimitError
    ├── ConfigurationError (ValueError)   at construction or ``init_app``; the message says the fix
    ├── HandOverError                     a token of work that was handed over can't be used; the message says why
    └── StoreError                        the store could not answer; ``transient`` says whether to try again
        ├── AwayError                     nothing was asked of it, so nothing was changed
        └── UnansweredError               nobody knows whether it did what was asked

A refusal is not an error: the engine returns it as a decision.
"""


class AILimitError(Exception):
    """The root of this library's errors."""


class ConfigurationError(AILimitError, ValueError):
    """A setting is wrong. The message names it, shows what was given, and says what to write instead."""


class HandOverError(AILimitError):
    """A token of work that was handed over was changed, is somebody else's, or is too old."""


class StoreError(AILimitError):
    """The store could not read or write.

    ``transient`` is true when the same call may succeed later (a full disk, a lost connection), false when
    somebody must act first (a directory with the wrong owner).
    """

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class AwayError(StoreError):
    """Nothing was asked of the store, which is known to be away, or in which somebody is for too long."""


class UnansweredError(StoreError):
    """The store was asked, and nobody knows whether it obeyed."""
