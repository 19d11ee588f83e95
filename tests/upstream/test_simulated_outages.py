"""What a provider that is away is asked, and how soon it is found to be back: four workers on a virtual clock."""

from itertools import pairwise

import pytest
from simulated_calls import Provider, World, push

from flask_ailimit.engine import Quota
from flask_ailimit.upstream import attempts

LEFT, BACK, END = 30.0, 90.0, 150.0
FIRST_FAILURES = 2.0
"""Seconds in which the breaker opens."""


@pytest.mark.parametrize("seed", range(5))
def test_provider_that_is_away_is_asked_once_a_second_at_most_and_is_found_within_ten(seed, monkeypatch):
    world = World(seed)
    monkeypatch.setattr(attempts, "_random", world.random.random)
    provider = Provider(world, [Quota(600, 60, "requests")])
    upstreams = world.upstreams(world.engine(), 4, requests="600 per minute", max_wait=20.0)
    world.after(LEFT, lambda: setattr(provider, "is_away", True))
    world.after(BACK, lambda: setattr(provider, "is_away", False))
    push(upstreams, provider, threads=8, every=6.4, until=END)
    probes = [at for at in provider.came if LEFT + FIRST_FAILURES < at < BACK]
    assert probes
    assert min(later - at for at, later in pairwise(probes)) >= 1
    # Somebody must be about to call, and the network has to be crossed.
    assert min(at for at in provider.came if at > BACK) <= BACK + 10.2
    assert len([at for at in provider.came if LEFT < at <= LEFT + FIRST_FAILURES]) <= 25
    assert len([at for at in provider.came if at > END - 20]) >= 0.9 * 20 * 32 / 6.4
