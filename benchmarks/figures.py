"""The pictures of the page: times against model size, first steps, memory."""

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.contestants import COMPILED, EAGER, ENTRIES, FLOOR, HAND, JAX, NUMTAPE, TORCH
from benchmarks.models import MODELS
from benchmarks.reading import Figures
from benchmarks.rounds import parameter_count

SHOWN = (NUMTAPE, EAGER, HAND, TORCH, COMPILED, JAX)
COLOURS = dict(
    zip(SHOWN, ("#d1495b", "#edae9c", "#66717e", "#00798c", "#52b69a", "#b08900"), strict=True)
)
FLOOR_COLOUR = "#222222"


def draw(raw: dict[str, Any], folder: Path) -> None:
    """bench-time.svg, bench-first.svg and bench-memory.svg."""
    figures = Figures(raw)
    plt.rcParams |= {
        "font.size": 9,
        "svg.hashsalt": "numtape",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    _times(figures, folder / "bench-time.svg")
    _first_steps(figures, folder / "bench-first.svg")
    _memory(figures, folder / "bench-memory.svg")


def _shown(figures: Figures) -> list[str]:
    return [n for n in SHOWN if n in figures.contestants()]


def _save(path: Path) -> None:
    plt.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close()


# ---- times ----------------------------------------------------------------------------------


def _times(figures: Figures, path: Path) -> None:
    """Step times and the floor, models in the order of their parameters."""
    _, axes = plt.subplots(1, 2, figsize=(9.5, 3.8))
    for axis, mode, title in zip(axes, ("train", "infer"), ("training", "inference"), strict=True):
        _against_size(figures, axis, mode)
        axis.set_title(f"{title}: step time, median", loc="left", fontsize=10)
    axes[0].set_ylabel("milliseconds")
    _legend(axes[0], columns=4)
    _save(path)


def _against_size(figures: Figures, axis: Axes, mode: str) -> None:
    models = sorted(figures.raw[mode], key=lambda m: parameter_count(MODELS[m]))
    for name in (*_shown(figures), FLOOR):
        points = [
            (place, figures.median(mode, m, name))
            for place, m in enumerate(models)
            if figures.has(mode, m, name)
        ]
        if points:
            own = name == NUMTAPE
            style = {"lw": 2.2 if own else 1.3, "zorder": 3 if own else 2, "marker": "o", "ms": 4}
            if name == FLOOR:
                style |= {"ls": ":", "marker": ""}
            label = "the floor" if name == FLOOR else ENTRIES[name].title
            axis.plot(
                *zip(*points, strict=True),
                color=COLOURS.get(name, FLOOR_COLOUR),
                label=label,
                **style,
            )
    names = [f"{m}\n{_short(parameter_count(MODELS[m]))}" for m in models]
    axis.set_xticks(range(len(models)), names, fontsize=8)
    _logarithmic(axis)


def _short(count: int) -> str:
    """9 k, 0.8 M: parameters."""
    return f"{count / 1e6:.2g} M" if count > 1e5 else f"{count / 1e3:.0f} k"


def _logarithmic(axis: Axes) -> None:
    """Heights by powers of ten, written out."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(axis="y", color="#eeeeee")
    axis.set_axisbelow(True)


def _legend(axis: Axes, columns: int) -> None:
    axis.legend(
        frameon=False, fontsize=8, ncols=columns, loc="upper left", bbox_to_anchor=(0, -0.12)
    )


# ---- bars -----------------------------------------------------------------------------------


def _first_steps(figures: Figures, path: Path) -> None:
    _, axis = plt.subplots(figsize=(9.5, 3.2))
    values = {
        name: [
            figures.first("train", m, name) if figures.has("train", m, name) else None
            for m in figures.raw["train"]
        ]
        for name in _shown(figures)
    }
    _bars(axis, list(figures.raw["train"]), values, "{:.2g}")
    axis.set_ylabel("seconds")
    axis.set_title("process start to first finished training step", loc="left", fontsize=10)
    _save(path)


def _memory(figures: Figures, path: Path) -> None:
    _, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), width_ratios=(3, 2))
    models = list(figures.raw["train"])
    peaks = {
        name: [_megabytes(figures, m, name, "peak") for m in models] for name in _shown(figures)
    }
    _bars(axes[0], models, peaks)
    axes[0].set_ylabel("megabytes")
    axes[0].set_title("most memory of a training process", loc="left", fontsize=10)
    held = {
        NUMTAPE: [_megabytes(figures, m, NUMTAPE, "arena") for m in models],
        EAGER: [_megabytes(figures, m, EAGER, "heap") for m in models],
        TORCH: [_megabytes(figures, m, TORCH, "activations") for m in models],
    }
    titles = {NUMTAPE: "numtape's arena", EAGER: "numtape, eager: peak", TORCH: "saved by torch"}
    _bars(axes[1], models, held, titles=titles)
    axes[1].set_title("for one step", loc="left", fontsize=10)
    _save(path)


def _megabytes(figures: Figures, model: str, name: str, fact: str) -> float | None:
    found = figures.fact("train", model, name, fact)
    return None if found is None else found / 1e6


def _bars(
    axis: Axes,
    models: list[str],
    values: dict[str, list[float | None]],
    form: str = "",
    titles: dict[str, str] | None = None,
) -> None:
    """A group for each model, a bar for each contestant, on a logarithmic axis."""
    width = 0.84 / max(1, len(values))
    for i, (name, heights) in enumerate(values.items()):
        title = (titles or {}).get(name, ENTRIES[name].title)
        places = [n + (i - (len(values) - 1) / 2) * width for n in range(len(models))]
        known = [(p, h) for p, h in zip(places, heights, strict=True) if h is not None]
        if known:
            bars = axis.bar(*zip(*known, strict=True), width, color=COLOURS[name], label=title)
            if form:
                axis.bar_label(bars, fmt=form, fontsize=6, padding=1)
    axis.set_xticks(range(len(models)), models)
    _logarithmic(axis)
    heights = [h for column in values.values() for h in column if h is not None]
    axis.set_ylim(10 ** math.floor(math.log10(min(heights))))
    _legend(axis, columns=3 if titles is None else 1)
