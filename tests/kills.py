"""Training that is killed over and over, and must come to the same parameters each time.

    python tests/kills.py 200

Half of the kills come from outside at a random moment; the other half strike inside a save, right
before or after a random one of its system calls, or with a write half done.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from numtape.training import checkpoint, folder, run
from numtape.training.options import PRESETS, changed

STEPS, PER_RUN = 30, 5
POINTS = 40  # in a save, about: before and after each of its system calls
SIZES = {"d_model": 8, "heads": 2, "layers": 1, "d_ff": 8, "context": 8, "batch": 2}
EVERY = {"steps": STEPS, "save_every": 1, "eval_every": STEPS, "average": 0.5, "dropout": 0.1}


# ---- the process that is killed -----------------------------------------------------------


def train(place: Path, fatal: int) -> None:
    """Start the run, or go on with it; die at the system call of that number, if it is any."""
    run.report = run.show_samples = lambda *_: None  # type: ignore[assignment]
    tell = os.open(place / "committed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    save = checkpoint.save

    def told(target: Any, arrays: Any, meta: Any) -> None:
        save(target, arrays, meta)
        os.write(tell, b"%d\n" % meta["step"])

    folder.checkpoint.save = told  # type: ignore[assignment]
    die_in_a_save(fatal)
    if checkpoint.exists(place / "run"):
        run.resume(place / "run", {})
        return
    given = {**SIZES, **EVERY, "files": (str(place / "text"),), "out": str(place / "run")}
    run.start(changed(PRESETS["text"], given))


def die_in_a_save(fatal: int) -> None:
    """Make the system calls that saving consists of count, and the fatal one kill."""
    left = [fatal]

    def count() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(call: Any) -> Any:
        def counted(*arguments: Any, **settings: Any) -> Any:
            count()
            result = call(*arguments, **settings)
            count()
            return result

        return counted

    def torn(path: Path, data: bytes) -> None:
        with open(path, "wb") as file:
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                file.write(part)
                file.flush()
                count()
            os.fsync(file.fileno())

    for name in ("replace", "fsync", "link", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))
    checkpoint._write = torn


# ---- the killer ---------------------------------------------------------------------------


def kill_runs(kills: int, seed: int, base: Path) -> Counter:
    """So many kills, spread over runs that all must end alike; how many of each kind struck.

    Raises AssertionError where a checkpoint is lost, does not load, or ends otherwise.
    """
    moments, counts = random.Random(seed), Counter()
    start = time.perf_counter()
    wanted = finished(new_place(base / "whole"))
    longest = 1.1 * (time.perf_counter() - start)  # so that a few come too late
    while counts["random"] + counts["saving"] < kills:
        place = new_place(base / f"run{counts['runs']}")
        counts["runs"] += 1
        for _ in range(min(PER_RUN, kills - counts["random"] - counts["saving"])):
            inside = counts["saving"] <= counts["random"]
            if not killed(place, moments, 0.0 if inside else longest):
                counts["too late"] += 1
                break
            counts["saving" if inside else "random"] += 1
            counts["before the first checkpoint"] += not loaded(place)
        found = finished(place)
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            assert array.tobytes() == found[name].tobytes(), f"{name} differs in {place}"
    return counts


def new_place(place: Path) -> Path:
    place.mkdir()
    (place / "text").write_text("to be or not to be\n" * 40)
    return place


def killed(place: Path, moments: random.Random, longest: float) -> bool:
    """Go on with a run until it is killed, after at most so many seconds or else in a save.

    False if it came to its end before.
    """
    process = begin(place, 0 if longest else moments.randrange(1, 3 * POINTS))
    if longest:
        time.sleep(moments.uniform(0.0, longest))
        process.kill()
    return process.wait(60) == -signal.SIGKILL


def finished(place: Path) -> checkpoint.Arrays:
    """The arrays of a run after its end, which is brought about if need be."""
    if loaded(place) < STEPS:
        process = begin(place, 0)
        assert process.wait(120) == 0, process.returncode
    assert loaded(place) == STEPS
    return checkpoint.load(place / "run")[0]


def loaded(place: Path) -> int:
    """The step of the checkpoint, which must be there, whole, and no older than was told."""
    committed = place / "committed"
    told = [int(step) for step in committed.read_text().split()] if committed.exists() else []
    if not checkpoint.exists(place / "run"):
        assert not told, "the checkpoint is lost"
        return 0
    for path in (place / "run", place / "run" / checkpoint.PREVIOUS):
        if checkpoint.exists(path):
            steps = checkpoint.load(path)[1]["step"]
            assert path.name == checkpoint.PREVIOUS or steps >= max(told, default=0)
    folder.load_model(place / "run")
    return int(checkpoint.load(place / "run")[1]["step"])


def begin(place: Path, fatal: int) -> subprocess.Popen:
    command = [sys.executable, __file__, "train", str(place), str(fatal)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main(kills: int) -> None:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as base:
        counts = kill_runs(kills, random.SystemRandom().randrange(2**32), Path(base))
    print(dict(counts), f"{time.perf_counter() - start:.0f} s: all runs ended with the same bits")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]))
