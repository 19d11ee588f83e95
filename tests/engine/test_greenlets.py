"""Under gevent a greenlet that computes lets no other one run: leases are renewed beside it."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(find_spec("flask_ailimit").origin).parents[1]

# The lease, of 3 s, would end while the greenlet computes.
COMPUTE = """
from gevent import monkey
monkey.patch_all()
import json, sys, time
sys.path.insert(0, {root!r})
from flask_ailimit.engine import Charge, Engine, Quota, open_store, system_clock

engines = {{
    uri.partition(":")[0]: Engine(open_store(uri, name="busy", clock=system_clock, options={{}})) for uri in {uris!r}
}}
one = Quota(1, 3, "concurrency", "concurrency")
slots = {{name: Charge(engine.subject("user-1"), one) for name, engine in engines.items()}}
held = {{name: engine.reserve([slots[name]]) for name, engine in engines.items()}}
end = time.monotonic() + 7
while time.monotonic() < end:
    pass
meanwhile = {{name: engine.reserve([slots[name]]).allowed for name, engine in engines.items()}}
for reservation in held.values():
    reservation.settle({{}})
after = {{name: engine.reserve([slots[name]]).allowed for name, engine in engines.items()}}
for engine in engines.values():
    engine.close()
print(json.dumps({{name: [meanwhile[name], after[name]] for name in engines}}))
"""


@pytest.fixture(scope="module")
def allowed(tmp_path_factory):
    """By store: whether a second call was let in while a greenlet computed, and after the first had ended."""
    uris = ["memory://", f"local://{tmp_path_factory.mktemp('greenlets')}/limits"]
    code = COMPUTE.format(root=str(ROOT), uris=uris)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert ran.stderr == ""
    return json.loads(ran.stdout)


@pytest.mark.parametrize("store", ["memory", "local"])
def test_lease_is_renewed_while_a_greenlet_computes(store, allowed):
    assert allowed[store] == [False, True]
