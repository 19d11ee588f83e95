import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
if BENCH.exists():
    sys.path.append(str(BENCH))
else:  # The source distribution has none.
    collect_ignore_glob = ["test_*"]
