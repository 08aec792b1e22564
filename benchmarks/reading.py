"""Reading raw figures: medians, ratios, who is the best peer; and Markdown tables."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.contestants import EAGER, ENTRIES, EXACT, FLOOR, HAND, NUMTAPE

OWN = (NUMTAPE, EXACT, EAGER, HAND, FLOOR)


class Figures:
    """The raw figures of a run, by mode ("train" or "infer"), model and contestant."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def contestants(self) -> list[str]:
        """All that took part, in their order; the floor is none of them."""
        names = [n for mode in ("train", "infer") for m in self.raw[mode].values() for n in m]
        return [n for n in dict.fromkeys(names) if n != FLOOR]

    def has(self, mode: str, model: str, name: str) -> bool:
        return name in self.raw[mode].get(model, {})

    def report(self, mode: str, model: str, name: str) -> dict[str, Any]:
        return self.raw[mode][model][name]

    def fact(self, mode: str, model: str, name: str, fact: str) -> Any:
        """None where it was not measured."""
        return self.raw[mode].get(model, {}).get(name, {}).get(fact)

    def imports(self, library: str) -> list[float]:
        """Milliseconds of each import of a library, NumPy being there already."""
        return [
            taken
            for model in self.raw["train"].values()
            for name, report in model.items()
            if name != FLOOR and ENTRIES[name].library == library
            for taken in report["import"]
        ]

    @staticmethod
    def middle(values: Sequence[float]) -> float:
        return statistics.median(values)

    def median(self, mode: str, model: str, name: str) -> float:
        """Milliseconds of a step."""
        return self.middle(self.report(mode, model, name)["ms"])

    def ratio(self, mode: str, model: str, name: str, other: str | None) -> float | None:
        """Step time to that of another; None where either did not run."""
        if other is None or not (self.has(mode, model, name) and self.has(mode, model, other)):
            return None
        return self.median(mode, model, name) / self.median(mode, model, other)

    def best_peer(self, mode: str, model: str) -> str | None:
        """The library with the shortest median, numtape, hand-written NumPy and floor apart."""
        peers = [n for n in self.raw[mode][model] if n not in OWN]
        return min(peers, key=lambda n: self.median(mode, model, n), default=None)

    def starts(self, mode: str, model: str, name: str) -> list[float]:
        """Seconds from the start of a process to its first finished step, of several."""
        return self.fact(mode, model, name, "first") or []

    def first(self, mode: str, model: str, name: str) -> float:
        """The same, the median; what is cached on disk is left out."""
        starts = self.starts(mode, model, name)
        return starts[0] if name == "torch_compile" else self.middle(starts)


def table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [tuple(head), *rows]
    lines.insert(1, ("---",) * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
