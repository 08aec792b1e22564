"""`python -m fuzz`: many random programs; figures in build/fuzz.json, failures made small.

A run goes over the seeds from `--seed` on; where the file holds a run over the same first seed,
it goes on from where that ended. With `--torch` each program is compared with PyTorch, too.
"""

import argparse
import json
import sys
from collections import Counter
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fuzz.check import Found, check
from fuzz.generator import generate
from fuzz.program import Program
from fuzz.shrink import Check, shrink
from numtape.ir.op import REGISTRY

SAVED = 200  # programs between two writings of the figures
MARKS = {"input", "constant", "released"}  # no work, and nobody's result


class Figures:
    """What a run has found so far."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = self.next = first
        self.counts: Counter[str] = Counter()
        self.ops: set[str] = set()
        self.pairs: set[tuple[str, str]] = set()
        self.failures: list[dict[str, Any]] = []
        self._resume()

    def _resume(self) -> None:
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        if known.get("first") == self.first:
            self.next = known["next"]
            self.counts.update(known["counts"])
            self.ops.update(known["ops"])
            self.pairs.update(map(tuple, known["pairs"]))
            self.failures += known["failures"]

    def add(self, program: Program, found: Found) -> None:
        self.next += 1
        self.counts["programs"] += 1
        self.counts[f"mode {program.mode}"] += 1
        self.counts["steps"] += len(program.steps)
        for name in ("refused", "ill", "slopes", "budget"):
            self.counts[name] += getattr(found, name)
        self.counts["small tiles"] += bool(program.options.get("tile"))
        self.ops |= found.ops
        self.pairs |= found.pairs

    def add_beside(self, found: Found) -> None:
        """How a comparison with PyTorch went."""
        went = "compared, ill" if found.ill else "compared"
        self.counts[f"PyTorch: {found.skipped or went}"] += 1

    def fail(self, seed: int, failure: str, detail: str, script: str) -> None:
        self.counts["failures"] += 1
        made = {"seed": seed, "failure": failure, "detail": detail, "script": script}
        self.failures.append(made)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        figures = {
            "date": datetime.now(UTC).isoformat(timespec="minutes"),
            "first": self.first,
            "next": self.next,
            "counts": dict(sorted(self.counts.items())),
            "ops missing": sorted({*REGISTRY} - self.ops - MARKS),
            "ops": sorted(self.ops),
            "pairs": sorted(self.pairs),
            "failures": self.failures,
        }
        self.path.write_text(json.dumps(figures, indent=1))

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {n}" for name, n in sorted(self.counts.items()))
        ops = len(self.ops - MARKS)
        total = len({*REGISTRY} - MARKS)
        return f"{counts}; {ops} of {total} ops, {len(self.pairs)} pairs of them"


def run(
    programs: int,
    first: int,
    path: Path,
    quiet: bool = False,
    stop: bool = False,
    beside: Check | None = None,
) -> Figures:
    """Check the programs of so many seeds from the first on; with `stop`, up to a failure.

    `beside` is a further check, of what passed.
    """
    figures = Figures(path, first)
    seeds = range(figures.next, first + programs)
    for seed in tqdm(seeds, total=programs, initial=figures.next - first, disable=quiet):
        program, by = generate(seed), check
        found = check(program)
        figures.add(program, found)
        if beside and not found.failure:
            found, by = beside(program), beside
            figures.add_beside(found)
        if found.failure and stop:
            figures.fail(seed, found.failure, found.detail, program.script(_name(by)))
            break
        if found.failure:
            script = shrink(program, found.failure, by).script(_name(by))
            figures.fail(seed, found.failure, found.detail, script)
            tqdm.write(f"seed {seed}: {found.failure}: {found.detail}\n{script}")
        if (seed + 1) % SAVED == 0:
            figures.save()
    figures.save()
    return figures


def _name(check: Check) -> str:
    return f"{check.__module__}.{check.__name__}"


def _beside_torch(parser: argparse.ArgumentParser) -> Check:
    if find_spec("torch") is None:
        parser.error("--torch needs PyTorch: `make test-torch` installs it")
    return import_module("fuzz.beside_torch").compare  # loads PyTorch, where it is asked for


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--programs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz.json"))
    parser.add_argument("--stop", action="store_true", help="at the first failure, as it is")
    parser.add_argument("--torch", action="store_true", help="compare with PyTorch as well")
    given = parser.parse_args()
    beside = _beside_torch(parser) if given.torch else None
    figures = run(given.programs, given.seed, given.out, stop=given.stop, beside=beside)
    print(figures)
    sys.exit(1 if figures.failures else 0)


if __name__ == "__main__":
    main()
