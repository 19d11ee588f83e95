"""Two hundred items, five workers, fifty a minute without a burst: how long it takes, on a virtual clock."""

import pytest
from simulated_calls import Provider, World, start_call

from flask_ailimit.engine import Quota
from flask_ailimit.upstream.calling import Calling
from flask_ailimit.upstream.refusing import Final

ITEMS, WORKERS, A_MINUTE = 200, 5, 50


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_batch_takes_the_least_possible_time_and_nothing_fails(seed, algorithm, processes):
    world = World(seed)
    upstreams = world.upstreams(
        world.engine(), processes, requests={"limit": f"{A_MINUTE} per minute", "burst": 1}, max_wait=60.0
    )
    provider = Provider(world, [Quota(A_MINUTE, 60, "requests", algorithm)])
    left, answers = list(range(ITEMS)), []

    def work(upstream):
        if left:
            left.pop()
            start_call([upstream], provider, lambda answer: took(upstream, answer), how=Calling(is_batch=True))

    def took(upstream, answer):
        answers.append((world.seconds(), answer))
        work(upstream)

    for number in range(WORKERS):
        work(upstreams[number % processes])
    world.run(1000, lambda: len(answers) < ITEMS)
    assert [answer for _, answer in answers if isinstance(answer, Final)] == []
    assert provider.statuses == {200: ITEMS}
    least = (ITEMS - 1) * 60 / A_MINUTE
    assert least <= answers[-1][0] <= 1.01 * least
