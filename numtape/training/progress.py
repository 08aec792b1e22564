"""What a person sees while a model trains: a bar on stderr, and lines above it.

Where stderr is no terminal the bar becomes a line now and then, so that logs stay readable.
"""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

BAR = "{n_fmt}/{total_fmt} |{bar}| {desc}{remaining} left"
LINE = "{n_fmt}/{total_fmt}  {desc}{remaining} left"
LOG_SECONDS = 10.0
SMOOTHING = 0.95


class Progress:
    """The steps, loss, tokens a second and time left of a run; a context manager."""

    def __init__(self, done: int, total: int) -> None:
        live = sys.stderr.isatty()
        self.bar = tqdm(
            total=total,
            initial=done,
            file=sys.stderr,
            bar_format=BAR if live else LINE,
            mininterval=0.1 if live else LOG_SECONDS,
            dynamic_ncols=live,
            leave=live,
        )
        self.live = live
        self.loss = 0.0
        self.started = self.last = time.perf_counter()
        self.steps = self.tokens = 0

    def step(self, loss: float, tokens: int) -> None:
        """One more step: the shown loss is a running mean."""
        self.loss = SMOOTHING * self.loss + (1 - SMOOTHING) * loss if self.steps else loss
        self.steps += 1
        self.tokens += tokens
        rate = self.tokens / self.seconds
        self.bar.set_description_str(
            f"loss {self.loss:.4f}, {rate:,.0f} tokens/s, ", refresh=False
        )
        if self.bar.update() and not self.live:
            sys.stderr.write("\n")

    def say(self, text: str) -> None:
        """A line above the bar, on stdout."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.last = time.perf_counter()
        self.bar.close()
