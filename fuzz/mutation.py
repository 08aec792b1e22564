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
from collections.abc import Iterator
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


def caught(mutant: Mutant, copy: Path) -> bool:
    """Whether a test fails in a copy of the repository with this mistake."""
    path = copy / mutant.file
    right = path.read_text()
    path.write_text(applied(right, mutant))
    try:
        return any(_fails(command, copy) for command in _commands(mutant))
    finally:
        path.write_text(right)


def _commands(mutant: Mutant) -> Iterator[list[str]]:
    """The quickest first: most mistakes are found within a few random programs."""
    yield _random(0, FEW)
    files = (f"tests/{name}.py" for name in TESTS[Path(mutant.file).name])
    yield ["pytest", "-x", "-p", "no:cacheprovider", *files]
    yield _random(FEW, MANY)


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
    results = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        for mutant in tqdm(mutants):
            results.append({**mutant._asdict(), "caught": caught(mutant, copy)})
            if not results[-1]["caught"]:
                tqdm.write(f"missed: {mutant.file}: {mutant.text!r} -> {mutant.instead!r}")
            _save(results, path)
    _show(results)
    return sum(r["caught"] for r in results) / len(results)


def _save(results: list[dict], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.now(UTC).isoformat(timespec="minutes")
    count = sum(r["caught"] for r in results)
    figures = {"date": date, "mutants": len(results), "caught": count, "results": results}
    path.write_text(json.dumps(figures, indent=1))


def _show(results: list[dict]) -> None:
    total = Counter(r["file"] for r in results)
    found = Counter(r["file"] for r in results if r["caught"])
    for file in (*total, None):
        name = file or "all"
        n, k = (total[file], found[file]) if file else (total.total(), found.total())
        print(f"{name:36} {k:3} of {n:3} caught")


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
