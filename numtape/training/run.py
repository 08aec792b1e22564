"""A whole run, as `numtape train` makes it: start or go on, train, then show what came of it."""

import time
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from numtape.training.folder import new_folder, resume_run, save_run
from numtape.training.loop import run_loop
from numtape.training.options import Options
from numtape.training.progress import Progress
from numtape.training.report import introduce, report, show_samples
from numtape.training.tasks import build_task
from numtape.training.trainer import Trainer


def start(options: Options) -> bool:
    """Train from the beginning; whether it came to the end, and was not interrupted.

    Raises DataError and ValueError where data or options do not fit, CheckpointError where the
    result cannot be saved, and TrainingError.
    """
    began = time.perf_counter()
    folder = new_folder(options)
    return _train(Trainer(build_task(options, _say), options), folder, began)


def resume(folder: Path, given: dict[str, Any]) -> bool:
    """Go on with the run in a folder, some options changed; otherwise like `start`."""
    began = time.perf_counter()
    return _train(resume_run(folder, given, _say), folder, began)


def _train(trainer: Trainer, folder: Path, began: float) -> bool:
    options = trainer.options
    # Around everything, and not in each call of a tape: samples and scores are computed here too.
    with threadpool_limits(options.threads, user_api="blas"):
        # A folder that cannot be written to is found out now, and not at the end.
        save_run(folder, trainer)
        introduce(trainer, folder)
        with Progress(trainer.steps, options.steps) as progress:
            finished = run_loop(trainer, folder, progress)
        if not finished:
            _say(f"Interrupted: step {trainer.steps} of {options.steps} is saved in {folder}.")
            _say(f"Go on with: numtape train --resume {folder}")
            return False
        if trainer.use_average():
            loss = trainer.validation_loss()
            _say(f"averaged      validation loss {loss:.4f}")
        show_samples(trainer)
    report(trainer, progress, folder, time.perf_counter() - began)
    return True


def _say(text: str) -> None:
    print(text, flush=True)
