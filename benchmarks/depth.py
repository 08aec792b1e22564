"""How long compiling takes by the number of layers: `python -m benchmarks.depth LAYERS CORE`.

The training step of a narrow GPT, whose graph is that of a wide one; compiled and not run.
"""

import json
import os
import sys

from benchmarks.contestants.numtape_compiled import Contestant
from benchmarks.models import Model

DEPTHS = (6, 12, 24, 48, 96)


def main() -> None:
    layers, core = map(int, sys.argv[1:])
    os.sched_setaffinity(0, {core})
    contestant = Contestant(Model("depth", "gpt", layers, 32, 2, 16, 4, 65), True)
    tape = contestant.compiled.tape(*contestant.batch)
    print(json.dumps({"layers": layers, "nodes": tape.graph().operations, **tape.phases}))


if __name__ == "__main__":
    main()
