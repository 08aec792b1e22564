"""The process of one contestant: builds it, takes a first step, then does what it is told.

Started as `python -m benchmarks.worker CONTESTANT MODEL train|infer CORE`. It speaks in lines of
JSON: commands come by standard input, answers go to what was standard output; everything that
libraries print goes to standard error.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from benchmarks.contestants import ENTRIES
from benchmarks.models import MODELS

WARM = 2  # steps after the first whose losses are compared


def own_output() -> TextIO:
    """Standard output for answers alone; what others print there goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def peak_memory() -> int:
    """Bytes of memory that this process has had at most."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def timed(action: Callable[[], Any], steps: int) -> list[float]:
    """Milliseconds of each call."""
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        action()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def begin(name: str, model: str, mode: str) -> tuple[Any, dict[str, Any]]:
    """The contestant after its first steps, and what is to be said of them."""
    start = time.perf_counter()
    importlib.import_module(ENTRIES[name].library if name in ENTRIES else "numtape")
    imported = time.perf_counter()
    module = importlib.import_module(f"benchmarks.contestants.{name}")
    contestant = module.Contestant(MODELS[model], mode == "train")
    number = contestant.number(contestant.step())
    return contestant, {"import": 1e3 * (imported - start), "numbers": [number]}


def answer(contestant: Any, command: dict[str, Any]) -> Any:
    match command["do"]:
        case "run":
            return timed(getattr(contestant, command["what"]), command["steps"])
        case "numbers":
            return [contestant.number(contestant.step()) for _ in range(WARM)]
        case "prepare":
            return contestant.prepare()
        case "peak":
            return peak_memory()
        case "facts":
            return contestant.facts()
    raise ValueError(f"no such command: {command}")


def main() -> None:
    name, model, mode, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    answers = own_output()
    contestant, said = begin(name, model, mode)
    print(json.dumps(said), file=answers)
    for line in sys.stdin:
        print(json.dumps(answer(contestant, json.loads(line))), file=answers)


if __name__ == "__main__":
    main()
