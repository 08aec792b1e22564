"""The targets, and whether they are met."""

from collections.abc import Callable, Iterator

from benchmarks.contestants import COMPILED, EAGER, EXACT, FLOOR, HAND, JAX, NUMTAPE, TORCH
from benchmarks.reading import Figures

Limits = dict[str, float]
# What a step may take of another's, by model.
STEP: dict[str, Limits] = {
    FLOOR: {"nano": 1.20, "baby": 1.12, "mid": 1.10, "base": 1.10},
    TORCH: {"mlp": 0.25, "tiny": 0.40, "nano": 1.0, "baby": 1.0, "mid": 1.0, "base": 1.0},
    JAX: {"mlp": 0.7, "tiny": 0.9, "nano": 0.9, "baby": 0.9, "mid": 0.9, "base": 0.9},
    HAND: {"mlp": 1.1, "tiny": 0.9, "nano": 0.95, "baby": 0.95, "mid": 1.0, "base": 1.0},
}
TITLES = {FLOOR: "floor", TORCH: "torch eager", JAX: "JAX jit", HAND: "NumPy by hand"}
FIRST = {"nano": 0.6}  # seconds
COMPILING = {"nano": 150.0, "base": 600.0}  # milliseconds
OF_TORCH_COMPILE, OF_EAGER, OF_SAVED, EXACT_COST = 0.1, 0.5, 1.0, 1.05
LINEAR = 1.25  # how much more a layer may cost at the greatest depth than at the least

Row = tuple[str, str, str, str, str]


def rows(figures: Figures) -> list[Row]:
    """What, model, target, found, and "met" or by how much it is missed."""
    return [*_steps(figures), *_starts(figures), *_memory(figures)]


def _steps(figures: Figures) -> Iterator[Row]:
    for other, limits in STEP.items():
        for model, limit in limits.items():
            found = figures.ratio("train", model, NUMTAPE, other)
            yield from _row(f"step / {TITLES[other]}", model, limit, found)
    for model in figures.raw["train"]:
        found = figures.ratio("train", model, EXACT, NUMTAPE)
        yield from _row("exact step / default step", model, EXACT_COST, found)


def _starts(figures: Figures) -> Iterator[Row]:
    for model in figures.raw["train"]:
        first = figures.first("train", model, NUMTAPE)
        if model in FIRST:
            yield from _row("start to first step, s", model, FIRST[model], first)
        if figures.has("train", model, COMPILED):
            found = first / figures.first("train", model, COMPILED)
            yield from _row("the same / torch.compile", model, OF_TORCH_COMPILE, found)
        if model in COMPILING:
            spent = sum(figures.report("train", model, NUMTAPE)["phases"].values())
            yield from _row("trace to emit, ms", model, COMPILING[model], spent, "{:.0f}".format)
    least, *_, greatest = figures.raw["depth"]
    found = _each(greatest) / _each(least)
    what = f"trace to emit a layer, {greatest['layers']} / {least['layers']} layers"
    yield from _row(what, "any", LINEAR, found)


def _each(depth: dict[str, float]) -> float:
    layers, _, *phases = depth.values()
    return sum(phases) / layers


def _memory(figures: Figures) -> Iterator[Row]:
    for model in figures.raw["train"]:
        report = figures.report("train", model, NUMTAPE)
        eager = figures.fact("train", model, EAGER, "heap")
        saved = figures.fact("train", model, TORCH, "activations")
        if eager:
            yield from _row("arena / eager's peak", model, OF_EAGER, report["arena"] / eager)
        if saved:
            found = report["arena"] / saved
            yield from _row("arena / torch eager's activations", model, OF_SAVED, found)
        heap = report["heap"]
        yield from _row("bytes allocated in a step", model, 0.0, heap, "{:,.0f}".format)


def _row(
    what: str,
    model: str,
    limit: float,
    found: float | None,
    form: Callable[[float], str] = "{:.2f}".format,
) -> Iterator[Row]:
    if found is None:
        return
    if found <= limit:
        verdict = "met"
    else:
        verdict = f"missed by {100 * (found / limit - 1):.0f} %" if limit else "missed"
    yield what, model, f"≤ {form(limit)}", form(found), verdict
