"""Under gevent a greenlet that computes lets no other one run: leases are renewed beside it."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(find_spec("flask_ailimit").origin).parents[1]

COMPUTE = """
from gevent import monkey
monkey.patch_all()
import sys, time
sys.path.insert(0, {root!r})
from flask_ailimit.engine import Charge, Engine, Quota, open_store, system_clock

engine = Engine(open_store({uri!r}, name="busy", clock=system_clock, options={{}}))
slot = Charge(engine.subject("user-1"), Quota(1, 3, "concurrency", "concurrency"))
held = engine.reserve([slot])
end = time.monotonic() + 7
while time.monotonic() < end:
    pass
print(engine.reserve([slot]).allowed)
held.settle({{}})
print(engine.reserve([slot]).allowed)
engine.close()
"""


@pytest.mark.parametrize("store", ["memory", "local"])
def test_lease_is_renewed_while_a_greenlet_computes(store, tmp_path):
    uri = "memory://" if store == "memory" else f"local://{tmp_path}/limits"
    code = COMPUTE.format(root=str(ROOT), uri=uri)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (ran.stdout, ran.stderr) == ("False\nTrue\n", "")
