"""What a person sees while a model trains: a bar on stderr, and lines above it.

Where stderr is no terminal a line now and then takes the bar's place, so that logs stay readable.
"""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

BAR = "{n_fmt}/{total_fmt} |{bar}| {desc}"
LOG_SECONDS = 10.0
SMOOTHING = 0.95


class Progress:
    """The steps, loss, tokens a second and time left of a run; a context manager.

    Speed is that of the steps alone: tracing, validating and saving do not count.
    """

    def __init__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self.loss = 0.0
        self.steps = self.tokens = 0
        self.stepping = 0.0
        self.started = self.logged = time.perf_counter()
        self.ended: float | None = None
        self.live = sys.stderr.isatty()
        self.bar = tqdm(
            total=total,
            initial=done,
            bar_format=BAR,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=not self.live,
        )

    def step(self, loss: float, tokens: int, seconds: float) -> None:
        """One more step, which took so long; the shown loss is a running mean."""
        self.loss = SMOOTHING * self.loss + (1 - SMOOTHING) * loss if self.steps else loss
        self.steps += 1
        self.tokens += tokens
        self.stepping += seconds
        if self.live:
            self.bar.set_description_str(self._summary(), refresh=False)
            self.bar.update()
        elif time.perf_counter() - self.logged > LOG_SECONDS:
            self._log()

    def say(self, text: str) -> None:
        """A line above the bar, on stdout."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    @property
    def seconds(self) -> float:
        """Since it began, or until it was over."""
        return (self.ended or time.perf_counter()) - self.started

    @property
    def step_rate(self) -> float:
        """Steps a second; 0 before the first."""
        return self.steps / self.stepping if self.steps else 0.0

    @property
    def token_rate(self) -> float:
        """Tokens a second that are not padding; 0 before the first step."""
        return self.tokens / self.stepping if self.steps else 0.0

    def _summary(self) -> str:
        left = tqdm.format_interval((self.total - self.done - self.steps) / self.step_rate)
        return f"loss {self.loss:.4f}, {self.token_rate:,.0f} tokens/s, {left} left"

    def _log(self) -> None:
        self.logged = time.perf_counter()
        now = self.done + self.steps
        print(f"{now}/{self.total}  {self._summary()}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ended = time.perf_counter()
        self.bar.close()
