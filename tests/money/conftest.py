import sys
from pathlib import Path

SHAPES = str(Path(__file__).parents[1] / "tokens")
if SHAPES not in sys.path:
    sys.path.append(SHAPES)
