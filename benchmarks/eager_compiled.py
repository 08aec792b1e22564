"""Whole training steps, eager against compiled, in interleaved rounds on one BLAS thread.

    python benchmarks/eager_compiled.py [--rounds 5] [MODEL ...]

Prints medians and their ratio, the first call (trace, passes, plan and emit), the peak memory of
the eager step and the arena that the compiled one has instead.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

import numtape as nt
from numtape import nn, optim
from numtape.transformer import GPT, Transformer

Step = Callable[..., nt.Tensor]

# name: layers, width, heads, context, batch, vocabulary
GPTS = {
    "gpt-tiny": (2, 32, 2, 16, 4, 65),
    "gpt-nano": (4, 128, 4, 64, 12, 65),
    "gpt-baby": (6, 384, 6, 256, 8, 65),
    "gpt-mid": (4, 512, 8, 128, 8, 1000),
}
# name: width, batch
MLPS = {"mlp-4": (4, 2), "mlp-64": (64, 32), "mlp-512": (512, 256)}


def training_step(model: nn.Module, loss_of: Step) -> Step:
    """Loss, gradients and AdamW."""
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    def step(*batch: np.ndarray) -> nt.Tensor:
        loss = loss_of(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def gpt(name: str) -> tuple[Step, tuple[np.ndarray, ...]]:
    layers, width, heads, context, batch, vocabulary = GPTS[name]
    model = GPT(vocabulary, context, width, heads, layers)
    draw = np.random.default_rng(0).integers
    inputs, targets = (draw(0, vocabulary, (batch, context)) for _ in range(2))
    step = training_step(model, lambda x, y: nn.functional.cross_entropy(model(x), y))
    return step, (inputs, targets)


def mlp(name: str) -> tuple[Step, tuple[np.ndarray, ...]]:
    width, batch = MLPS[name]
    model = nn.Sequential(
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, 10),
    )
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(batch, width)).astype(np.float32)
    targets = generator.integers(0, 10, batch)
    step = training_step(model, lambda x, y: nn.functional.cross_entropy(model(x), y))
    return step, (inputs, targets)


def encoder_decoder(name: str) -> tuple[Step, tuple[np.ndarray, ...]]:
    model = Transformer(1000, 1000, d_model=128, heads=4, layers=3, d_ff=512, dropout=0.1)
    criterion = nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)
    draw = np.random.default_rng(0).integers
    step = training_step(model, lambda x, y: criterion(model(x, y[:, :-1]), y[:, 1:]))
    return step, (draw(1, 1000, (16, 24)), draw(1, 1000, (16, 25)))


MODELS = {
    **dict.fromkeys(MLPS, mlp),
    **dict.fromkeys(GPTS, gpt),
    "encoder-decoder": encoder_decoder,
}


def seconds(step: Step, batch: tuple[np.ndarray, ...], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step(*batch)
    return (time.perf_counter() - start) / repeats


def eager_peak(step: Step, batch: tuple[np.ndarray, ...]) -> int:
    """Bytes that one eager step holds at its fullest moment."""
    tracemalloc.start()
    step(*batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def measure(name: str, rounds: int) -> str:
    eager, batch = MODELS[name](name)
    compiled = nt.compile(MODELS[name](name)[0])
    tape = compiled.tape(*batch)
    repeats = max(1, int(0.2 / max(1e-4, seconds(compiled, batch, 2))))
    times = [
        (seconds(eager, batch, max(1, repeats // 5)), seconds(compiled, batch, repeats))
        for _ in range(rounds)
    ]
    slow, fast = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    peak, arena = eager_peak(eager, batch) / 1e6, tape.memory.arena / 1e6
    return (
        f"| {name} | {slow:.2f} | {fast:.2f} | {fast / slow:.2f} | {tape.milliseconds:.0f} "
        f"| {peak:.1f} | {arena:.1f} | {arena / peak:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(
        "| step | eager ms | compiled ms | ratio | first call ms | eager MB | arena MB | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with threadpool_limits(1):
        for name in options.models or MODELS:
            print(measure(name, options.rounds), flush=True)


if __name__ == "__main__":
    main()
