"""Provider bucket: a token bucket that a provider counts as well, and that others may use.

It is ``token-bucket`` in everything but one: a settlement at a cost of 0, with an ``actual`` above it, is what the
provider tells: at least so many units are used now. It may be more than the burst, up to what a debt may come to: a
bucket that is told again and again that it is just empty would go on at its whole rate, whoever else uses the account.
It never raises what is left, and done twice it is as done once.
"""

from flask_ailimit.engine.quota import Quota

from . import token_bucket
from .base import Algorithm, State


def settle(  # noqa: D103  see above
    state: State, now_us: int, quota: Quota, taken_at_us: int, cost: int, actual: int, lease: int
) -> State:
    is_told = not cost and actual > 0
    return token_bucket.settle(state, now_us, quota, taken_at_us, cost, actual, lease, is_told=is_told)


PROVIDER_BUCKET = Algorithm(token_bucket.admit, settle, token_bucket.expires)
