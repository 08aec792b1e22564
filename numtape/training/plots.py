"""The loss as a picture, or as a line of text where matplotlib is not installed.

Import it lazily: matplotlib takes half a second.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

try:
    from matplotlib import figure
except ImportError:
    figure = None  # type: ignore[assignment]

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # of the line of text
WIDE = 10.0  # the ratio of losses from which on their axis is logarithmic


def plot_losses(
    losses: Sequence[float], validation: Sequence[tuple[int, float]], title: str, path: Path
) -> bool:
    """Write the training and validation curves to a PNG file; False where matplotlib is absent."""
    if figure is None:
        return False
    picture = figure.Figure(figsize=(8, 5), layout="constrained")
    axes = picture.add_subplot()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="#9ecae1", linewidth=0.7, label="training, each step")
    window = max(len(losses) // 50, 1)
    axes.plot(
        steps, running_mean(losses, window), color="#08519c", label=f"training, mean of {window}"
    )
    if validation:
        at, values = zip(*validation, strict=True)
        axes.plot(at, values, "o-", color="#e6550d", markersize=4, label="validation")
    axes.set(title=title, xlabel="step", ylabel="cross-entropy (nats per token)")
    if max(losses) > WIDE * min(losses):
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    picture.savefig(path, dpi=120)
    return True


def running_mean(losses: Sequence[float], window: int) -> np.ndarray:
    """The mean of each value and those before it, up to `window` in all."""
    total = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - window, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def sparkline(losses: Sequence[float]) -> str:
    """The losses as one line of bars on a logarithmic scale, between the first and the last."""
    groups = np.array_split(np.asarray(losses, np.float64), min(WIDTH, len(losses)))
    means = [max(float(g.mean()), 1e-12) for g in groups]
    values = np.log(means)
    span = max(float(np.ptp(values)), 1e-12)
    heights = (values - values.min()) / span * (len(BARS) - 1)
    return f"{means[0]:.3g} {''.join(BARS[round(h)] for h in heights)} {means[-1]:.3g}"
