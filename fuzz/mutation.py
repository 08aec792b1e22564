"""`python -m fuzz.mutation`: every mutant in a copy of the repository, under the tests for it.

Prints a table and writes build/mutants.json; ends with 1 where fewer than 95 % are caught.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from fuzz.mutants import MUTANTS, TESTS, Mutant

ROOT = Path(__file__).parents[1]
LEAST = 0.95
SECONDS = 100  # of processor time for the tests of one mutant: some never end
COPIED = ("numtape", "fuzz", "tests", "pyproject.toml", "README.md", "docs")
FEW, MANY = 40, 500  # random programs before and behind those tests: as many as in `make test`


def applied(text: str, mutant: Mutant) -> str:
    """The file's text with the mistake in it; ValueError where its place is not found once."""
    if text.count(mutant.text) != 1:
        raise ValueError(f"{mutant.file} has {text.count(mutant.text)} times {mutant.text!r}")
    return text.replace(mutant.text, mutant.instead)


def _random_few(mutant: Mutant) -> list[str]:
    return _random(0, FEW)


def _files(mutant: Mutant) -> list[str]:
    names = (*TESTS[Path(mutant.file).name], "test_fuzz_passes")
    files = (f"tests/{name}.py" for name in names)
    return ["pytest", "-x", "-p", "no:cacheprovider", *files]


def _random_many(mutant: Mutant) -> list[str]:
    return _random(FEW, MANY)


# The quickest first: most mistakes are found within a few random programs.
STAGES = {"a few random programs": _random_few, "tests": _files, "random programs": _random_many}


def caught(mutant: Mutant, command: list[str], copy: Path) -> bool:
    """Whether a command fails in a copy of the repository with this mistake."""
    path = copy / mutant.file
    right = path.read_text()
    path.write_text(applied(right, mutant))
    try:
        return _fails(command, copy)
    finally:
        path.write_text(right)


def _require_right(mutants: list[Mutant], copy: Path) -> None:
    """Without a mistake nothing may fail: what does would count as having caught it."""
    commands = {tuple(command(m)) for command in STAGES.values() for m in mutants}
    for command in tqdm(sorted(commands), desc="no mistake"):
        if _fails(list(command), copy):
            sys.exit(f"fails without a mistake: {' '.join(command)}")


def _random(first: int, end: int) -> list[str]:
    return ["fuzz", "--stop", "--seed", str(first), "--programs", str(end - first)]


def _fails(command: list[str], copy: Path) -> bool:
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    whole = [sys.executable, "-m", *command]
    (copy / "build" / "fuzz.json").unlink(missing_ok=True)
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    done = subprocess.run(whole, cwd=copy, env=environment, capture_output=True, preexec_fn=limit)
    return done.returncode != 0


def run(mutants: list[Mutant], path: Path) -> float:
    """The share that is caught; the figures go to `path`."""
    by: dict[Mutant, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        _require_right(mutants, copy)
        for stage, command in STAGES.items():
            for mutant in tqdm([m for m in mutants if m not in by], desc=stage):
                if caught(mutant, command(mutant), copy):
                    by[mutant] = stage
                    _save(mutants, by, path)
    _show(mutants, by)
    return len(by) / len(mutants)


def _save(mutants: list[Mutant], by: dict[Mutant, str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.now(UTC).isoformat(timespec="minutes")
    results = [{**m._asdict(), "caught by": by.get(m)} for m in mutants]
    figures = {"date": date, "mutants": len(mutants), "caught": len(by), "results": results}
    path.write_text(json.dumps(figures, indent=1))


def _show(mutants: list[Mutant], by: dict[Mutant, str]) -> None:
    total, found = Counter(m.file for m in mutants), Counter(m.file for m in by)
    for m in mutants:
        if m not in by:
            print(f"missed: {m.file}: {m.text!r} -> {m.instead!r}")
    for file, count in total.items():
        print(f"{file:36} {found[file]:3} of {count:3} caught")
    print(f"{'all':36} {len(by):3} of {len(mutants):3} caught")


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz.mutation", description=__doc__)
    parser.add_argument("--only", default="", help="mutants of files with this in their name")
    parser.add_argument("--out", type=Path, default=Path("build/mutants.json"))
    parser.add_argument("--part", default="0/1", help="every n-th mutant from i on, as i/n")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    share = run([m for m in MUTANTS if given.only in m.file][part::parts], given.out)
    sys.exit(0 if share >= LEAST else 1)


if __name__ == "__main__":
    main()
