"""Whether replays leak: `python -m benchmarks.leak [REPLAYS]` watches the memory of a process.

The training step of the tiny model, a million times unless told otherwise; on one core that takes
a quarter of an hour. Fails where resident memory grows by more than 1 MB after the warm-up.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import getpagesize

from benchmarks.contestants.numtape_compiled import Contestant
from benchmarks.models import MODELS

REPLAYS = 1_000_000
WARM_UP = 1_000
PARTS = 20
MEGABYTE = 1 << 20


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


def growth(step: Callable[[], object], replays: int) -> Iterator[tuple[int, int]]:
    """After each part of the replays: how many there were, and the bytes grown since warm-up."""
    for _ in range(WARM_UP):
        step()
    before = resident()
    for part in range(1, PARTS + 1):
        for _ in range(replays // PARTS):
            step()
        yield part * (replays // PARTS), resident() - before


def main() -> None:
    replays = int(sys.argv[1]) if len(sys.argv) > 1 else REPLAYS
    begun = time.perf_counter()
    worst = 0
    for done, grown in growth(Contestant(MODELS["tiny"], True).step, replays):
        worst = max(worst, grown)
        print(f"{done:>9,} replays: resident memory grew by {grown / 1024:,.0f} KB", flush=True)
    minutes = (time.perf_counter() - begun) / 60
    print(f"at most {worst / 1024:,.0f} KB in {replays:,} replays, {minutes:.1f} minutes")
    if worst > MEGABYTE:
        raise SystemExit("resident memory grew by more than 1 MB")


if __name__ == "__main__":
    main()
