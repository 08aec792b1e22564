"""A mixture of experts divides a task that has four cases among four small networks.

Points of the plane are to be turned by an angle that depends on their quadrant. The gate sees
the point alone; which expert serves which quadrant is for training to find out.

Run: python examples/mixture_of_experts.py [--quick]
"""

import argparse

import numpy as np

import numtape as nt
from numtape import nn, optim
from numtape.ir.ops.normalisation import softmax
from numtape.transformer import FeedForward, MixtureOfExperts

ANGLES = np.radians([0.0, 90.0, 200.0, 315.0])  # one for each quadrant


def quadrant(points: np.ndarray) -> np.ndarray:
    return 2 * (points[..., 1] < 0) + (points[..., 0] < 0)


def batch(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (size, 1, 2) and the same points turned."""
    points = rng.uniform(-4, 4, (size, 1, 2)).astype(np.float32)
    angle = ANGLES[quadrant(points)]
    x, y = points[..., 0], points[..., 1]
    turned = (x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle))
    return points, np.stack(turned, -1).astype(np.float32)


def train(model: nn.Module, steps: int) -> float:
    """The mean squared error over the last steps."""
    optimizer = optim.Adam(model.parameters(), lr=optim.schedules.warmup_cosine(0.05, 20, steps))

    @nt.compile
    def step(points: nt.Tensor, turned: nt.Tensor) -> nt.Tensor:
        loss = nn.functional.mse_loss(model(points), turned)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(0)
    losses = [step(*batch(rng, 256)).item() for _ in range(steps)]
    return float(np.mean(losses[-20:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="30 steps instead of 1,500")
    steps = 30 if parser.parse_args().quick else 1500

    nt.random.seed(0)
    single, mixture = FeedForward(2, 32), MixtureOfExperts(2, 8, experts=4)
    for name, model in (("one network", single), ("four experts", mixture)):
        count = sum(p.size for p in model.parameters())
        print(f"{name:12}  {count:4} parameters  error {train(model, steps):.3f}")

    points, _ = batch(np.random.default_rng(1), 4000)
    rows = nt.tensor(points).reshape(-1, 2)
    share = softmax(mixture.gate(rows)).numpy()
    places = quadrant(points).reshape(-1)
    print("\nshare of each expert, by quadrant")
    for place, name in enumerate(("upper right", "upper left", "lower right", "lower left")):
        found = share[places == place].mean(0)
        print(f"{name:12}", "  ".join(f"{s:4.0%} {'█' * round(10 * s):10}" for s in found))


if __name__ == "__main__":
    main()
