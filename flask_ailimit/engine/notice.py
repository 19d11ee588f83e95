"""The notice in a subject's record that somebody was told: this count has passed its soft percent in this window.

It is a count of its own beside the one that it is about, so that whoever forgets a count knows the name of its notice.
"""

from .algorithms import State

NOTICE: State = (1,)
"""Its state. No algorithm has one number alone, so a notice is known by its length."""


def notice_of(bucket: bytes) -> bytes:
    """The name of the notice about a count: the count's own, with its last bit changed.

    Both are as likely to be another count's name as any two hashes of eight bytes are to be the same.
    """
    return bucket[:-1] + bytes((bucket[-1] ^ 1,))
