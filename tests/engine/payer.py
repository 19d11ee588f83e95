"""One payer of one quota, which a test may change, in a store in memory whose clock the test moves."""

from flask_ailimit.engine import Charge, Engine
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import START_US, ManualClock


class Payer:
    def __init__(self, quota, start_us=START_US):
        self.quota = quota
        self.clock = ManualClock(start_us)
        self.engine = Engine(MemoryStore(self.clock))
        self.subject = self.engine.subject("payer")

    def reserve(self, cost):
        return self.engine.reserve([Charge(self.subject, self.quota, cost)])

    def use(self, used, reserved=None):
        """Reserve and settle at once."""
        reservation = self.reserve(used if reserved is None else reserved)
        assert reservation.allowed
        self.end(reservation, used)

    def end(self, reservation, used):
        """Settle what was reserved with what was used."""
        assert reservation.settle({self.quota.unit: used})

    def ask(self, cost=0):
        """The verdict on a charge that is not taken."""
        return self.engine.peek([Charge(self.subject, self.quota, cost)]).verdicts[0]

    @property
    def left(self):
        return self.ask().remaining

    @property
    def spending(self):
        return self.ask().spending
