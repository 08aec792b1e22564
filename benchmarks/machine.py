"""What a result depends on besides the code: machine, versions, and what installing takes."""

import importlib.util
import os
import platform
import time
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from threadpoolctl import threadpool_info


def machine(peers: Iterable[str]) -> dict[str, object]:
    """Processor, system, versions, and how busy the machine was."""
    blas = next((i for i in threadpool_info() if i["user_api"] == "blas"), {})
    cores = os.cpu_count()
    names = ("numpy", "numtape", *peers)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{_processor()}, {cores} cores",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "BLAS": " ".join(
            str(blas.get(k, "")) for k in ("internal_api", "version", "architecture")
        ),
        "versions": {name: v for name in names if (v := _version(name))},
        "load at the start": os.getloadavg()[0],
    }


def sizes(names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Megabytes on disk of each package, alone and with all that it requires."""
    found = {}
    for name in names:
        if _version(name):
            needed = _closure(name)
            found[name] = {
                "alone": _nbytes(distribution(name)) / 1e6,
                "all": sum(_nbytes(distribution(n)) for n in needed) / 1e6,
                "packages": len(needed),
            }
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    known = {key.strip(): value.strip() for key, value in values.items()}
    return f"{known['model name']} (family {known['cpu family']}, model {known['model']})"


def _version(name: str) -> str:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return ""


def _closure(name: str) -> set[str]:
    """The package and what it requires here, directly or not, extras excepted."""
    seen: set[str] = set()
    due = [name]
    while due:
        package = due.pop().lower().replace("_", "-")
        if package in seen or not _version(package):
            continue
        seen.add(package)
        required = map(Requirement, distribution(package).requires or ())
        due += [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return seen


def _nbytes(package: Distribution) -> int:
    """Bytes of its files, compiled Python excepted."""
    files = [Path(str(package.locate_file(f))) for f in package.files or ()]
    spec = importlib.util.find_spec(package.name)
    folders = [Path(f) for f in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        if not any(folder in f.parents for f in files):  # installed as editable
            files += folder.rglob("*")
    kept = (f for f in files if f.is_file() and f.suffix != ".pyc")
    return sum(f.stat().st_size for f in kept)
