"""Subjects to fill a store with, and the space that they take."""

import random

from flask_ailimit.testing import charge, reserve


def fill(store, subjects, seed=0):
    draw = random.Random(seed)
    for _ in range(subjects):
        reserve(store, charge(subject=draw.randbytes(16)))


def used_bytes(place):
    return (place / "data.mdb").stat().st_blocks * 512
