"""Measuring: contestants as processes on one core, run in turn, round after round."""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.contestants import COMPILED, ENTRIES, FLOOR, NUMTAPE
from benchmarks.models import Model, shapes

ROOT = Path(__file__).parent.parent
CORE = max(os.sched_getaffinity(0))
PATIENCE = 6.0  # seconds after which a contestant is not started again
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
Report = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """`rounds` of each model, the first of one step; after 3 no more once `seconds` have passed.

    slice   seconds of one contestant in one round, or one step if that takes longer.
    starts  of a contestant that is quick to start; the last one stays.
    """

    rounds: int
    seconds: float
    slice: float = 0.25
    starts: int = 1


class Worker:
    """The process of a contestant; `first` is the seconds from its start to its first step."""

    def __init__(self, name: str, model: str, mode: str, cache: str) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", name, model, mode, str(CORE)]
        kept = {"TORCHINDUCTOR_CACHE_DIR": cache}
        start = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD, **kept},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.name, self.said = name, self._answer()
        self.first = time.perf_counter() - start

    def ask(self, do: str, **details: Any) -> Any:
        print(json.dumps({"do": do, **details}), file=self.process.stdin, flush=True)
        return self._answer()

    def run(self, what: str, steps: int) -> list[float]:
        """Milliseconds of each step."""
        return self.ask("run", what=what, steps=steps)

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()


def able(names: Iterable[str], model: Model) -> list[str]:
    """Those that can run the model."""
    size = parameter_count(model) / 1e6
    known = ((name, ENTRIES[name]) for name in names)
    return [n for n, entry in known if model.kind in entry.kinds and size <= entry.largest]


def parameter_count(model: Model) -> int:
    return sum(map(math.prod, shapes(model).values()))


def measure(names: Iterable[str], model: Model, mode: str, effort: Effort) -> dict[str, Report]:
    """What is to be known of each contestant's steps, and of the floor."""
    workers: list[Worker] = []
    reports: dict[str, Report] = {}
    with tempfile.TemporaryDirectory() as cache:
        try:
            for name in able(names, model):
                worker, reports[name] = started(name, model, mode, cache, effort.starts)
                workers.append(worker)
            compare(reports)
            times = interleaved(_turns(workers), effort)
            for (name, what), taken in times.items():
                reports.setdefault(FLOOR if what == "floor" else name, {})["ms"] = taken
            for worker in workers:
                reports[worker.name] |= worker.ask("facts")
        finally:
            for worker in workers:
                worker.__exit__()
    return reports


def started(name: str, model: Model, mode: str, cache: str, starts: int) -> tuple[Worker, Report]:
    """A worker, and how long it took to start: at first, and with whatever it cached."""
    seconds: list[float] = []
    imports: list[float] = []
    while True:
        worker = Worker(name, model.name, mode, cache)
        seconds.append(worker.first)
        imports.append(worker.said["import"])
        wanted = min(starts, 2) if name == COMPILED else starts  # empty cache, and filled
        if len(seconds) >= wanted or (name != COMPILED and sum(seconds) > PATIENCE):
            break
        worker.__exit__()
    numbers = [*worker.said["numbers"], *worker.ask("numbers")]
    report = {"first": seconds, "import": imports, "numbers": numbers, "peak": worker.ask("peak")}
    return worker, report


def compare(reports: Mapping[str, Report]) -> None:
    """All compute the same: losses of the first steps, or the logits' mean size, agree."""
    for step, values in enumerate(zip(*(r["numbers"] for r in reports.values()), strict=True)):
        middle = statistics.median(values)
        for name, value in zip(reports, values, strict=True):
            if abs(value - middle) > 2e-3 * abs(middle):
                raise RuntimeError(f"step {step} of {name} gives {value}, of others {middle}")


def _turns(workers: Iterable[Worker]) -> dict[tuple[str, str], Worker]:
    turns = {(worker.name, "step"): worker for worker in workers}
    if (NUMTAPE, "step") in turns:
        turns[NUMTAPE, "floor"] = turns[NUMTAPE, "step"]
        turns[NUMTAPE, "floor"].run("floor", 1)  # the first finds the products
    return turns


def interleaved(
    turns: Mapping[tuple[str, str], Worker], effort: Effort
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each step, by contestant and action: A B C A B C ..."""
    times = {key: worker.run(key[1], 1) for key, worker in turns.items()}
    steps = {k: max(1, min(500, int(1e3 * effort.slice / t[0]))) for k, t in times.items()}
    end = time.perf_counter() + effort.seconds
    for finished in range(1, effort.rounds):
        if finished >= 3 and time.perf_counter() > end:
            break
        for key, worker in turns.items():
            times[key] += worker.run(key[1], steps[key])
    return times


def ablation(model: Model, effort: Effort) -> Report:
    """Step times and arenas with each pass switched off, in rounds of one process."""
    with (
        tempfile.TemporaryDirectory() as cache,
        Worker("ablation", model.name, "train", cache) as w,
    ):
        names = ["step", *w.ask("prepare")]
        times = interleaved({("ablation", name): w for name in names}, effort)
        return {"ms": {name: taken for (_, name), taken in times.items()}, **w.ask("facts")}


def depth(layers: int) -> Report:
    """Milliseconds of each phase of compiling a training step of so many layers."""
    command = [sys.executable, "-m", "benchmarks.depth", str(layers), str(CORE)]
    environment = {**os.environ, **ONE_THREAD}
    output = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return json.loads(output.stdout)
