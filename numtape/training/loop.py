"""The loop: steps with a look at the validation loss and a checkpoint now and then.

Ctrl-C ends it after the current step, so that what is saved is always between two steps.
"""

import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from numtape.training.errors import CheckpointError
from numtape.training.folder import save_run
from numtape.training.progress import Progress
from numtape.training.trainer import Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Turns the first Ctrl-C (or SIGTERM) into a request; the second one interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread may handle signals; elsewhere nobody can press Ctrl-C.
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._request) for s in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def run_loop(trainer: Trainer, folder: Path, progress: Progress) -> bool:
    """Train up to the last step and save; whether it got there, and was not interrupted.

    Raises CheckpointError where the last state cannot be saved; if an earlier one cannot, that or
    a warning, as the options have it.
    """
    options = trainer.options
    with Stop() as stop:
        while trainer.steps < options.steps and not stop.requested:
            _advance(trainer, progress)
            ended = trainer.steps == options.steps
            if ended or trainer.steps % options.eval_every == 0:
                mean = trainer.validate()
                progress.say(f"step {trainer.steps:6d}   validation loss {mean:.4f}")
            if not ended and trainer.steps % options.save_every == 0:
                _try_to_save(trainer, folder, progress)
        save_run(folder, trainer)
    return trainer.steps >= options.steps


def _advance(trainer: Trainer, progress: Progress) -> None:
    start, traced = time.perf_counter(), trainer.tracing
    tokens = trainer.advance()
    seconds = time.perf_counter() - start - (trainer.tracing - traced)
    progress.step(trainer.losses[-1], tokens, seconds)


def _try_to_save(trainer: Trainer, folder: Path, progress: Progress) -> None:
    try:
        save_run(folder, trainer)
    except CheckpointError as error:
        if trainer.options.failed_save == "stop":
            raise
        progress.say(f"numtape: warning: {error}; training goes on")
