"""A store that writes down what was taken and settled, when, and by which process."""

import json
import os
import time


class Witness:
    """Wraps a store. A line is written when the store has done its work; appending is atomic across processes."""

    def __init__(self, store, path, settling_takes):
        self._store = store
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._settling_takes = settling_takes

    def __getattr__(self, name):
        return getattr(self._store, name)

    def reserve(self, charges, lease):
        decision = self._store.reserve(charges, lease)
        if decision.allowed and charges:
            self._write("taken", lease, [(charge, charge.cost) for charge in charges])
        return decision

    def settle(self, settlements):
        time.sleep(self._settling_takes)
        settled = self._store.settle(settlements)
        self._write("settled", settlements[0].lease, [(each.charge, each.actual) for each in settlements])
        return settled

    def told(self, _, *, subject, unit, used, **facts):
        """Receive what the app is told of a limit that is nearly used up."""
        self.note("told", subject=subject, unit=unit, used=used)

    def note(self, what, **facts):
        line = {
            "what": what,
            "at": time.monotonic(),  # One clock for all processes of the machine.
            "pid": os.getpid(),
            **facts,
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def _write(self, what, lease, charges):
        subject, units = charges[0][0].subject.hex(), {charge.quota.unit: number for charge, number in charges}
        self.note(what, lease=lease, subject=subject, units=units)
