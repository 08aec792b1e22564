"""A whole run, as `numtape train` makes it: start or go on, train, then show what came of it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numtape.inspect.draw import DrawError
from numtape.inspect.files import replace_file
from numtape.lazy import lazy
from numtape.training.evaluate import exact_match, translate, write_on
from numtape.training.folder import new_folder, resume_run
from numtape.training.loop import run_loop
from numtape.training.options import Options
from numtape.training.progress import Progress
from numtape.training.tasks import build_task
from numtape.training.trainer import Trainer
from numtape.transformer import GPT

plots = lazy("numtape.training.plots")

SAMPLES = 6
SAMPLE_TOKENS = 300


def start(options: Options) -> Path | None:
    """Train from the beginning; see `_train`."""
    folder = new_folder(options)
    print(f"Task: {options.task}   seed {options.seed}   folder {folder}")
    return _train(Trainer(build_task(options, print), options), folder)


def resume(folder: Path, given: dict[str, Any]) -> Path | None:
    """Go on with the run in a folder, some options changed; see `_train`."""
    trainer = resume_run(folder, given, print)
    print(f"Task: {trainer.options.task}   from step {trainer.steps}   folder {folder}")
    return _train(trainer, folder)


def _train(trainer: Trainer, folder: Path) -> Path | None:
    """Train and report; the folder, or None where it was interrupted (and then it says so)."""
    began = time.perf_counter()
    _introduce(trainer)
    with Progress(trainer.steps, trainer.options.steps) as progress:
        finished = run_loop(trainer, folder, progress)
    if not finished:
        print(f"Interrupted at step {trainer.steps} of {trainer.options.steps}, and saved.")
        print(f"Go on with: numtape train --resume {folder}")
        return None
    _show_samples(trainer)
    _report(trainer, progress, folder, time.perf_counter() - began)
    return folder


def _introduce(trainer: Trainer) -> None:
    model = trainer.task.model
    count = sum(p.size for p in model.parameters())
    print(trainer.task.summary)
    print(f"{type(model).__name__} with {count:,} parameters")
    tape = trainer.step.tape(*trainer.task.batch(trainer.steps))
    phases = ", ".join(f"{name} {ms:.0f} ms" for name, ms in tape.phases.items())
    print(f"First tape: {phases}")


def _show_samples(trainer: Trainer) -> None:
    model, task = trainer.task.model, trainer.task
    print()
    if isinstance(model, GPT):
        print(write_on(model, task.tokenizers[0], "", SAMPLE_TOKENS))
        return
    sources, targets = task.held_out
    count = len(sources) if trainer.options.task == "dates" else SAMPLES
    found = translate(model, task.tokenizers, sources[:count])
    width = min(max(map(len, sources[:SAMPLES])), 60)
    print("Held-out samples")
    for source, text, target in list(zip(sources, found, targets, strict=False))[:SAMPLES]:
        print(f"  {source:{width}}  ->  {text}" + ("" if text == target else f"   (not {target})"))
    if trainer.options.task == "dates":
        print(f"Exact match on {count:,} held-out dates: {exact_match(found, targets):.1%}")


def _report(trainer: Trainer, progress: Progress, folder: Path, seconds: float) -> None:
    tape = trainer.step.tapes[-1]
    print()
    print(f"{'time':12} {seconds:.1f} s in all")
    spent = progress.last - progress.started
    steps, tokens = progress.steps / spent, progress.tokens / spent
    print(f"{'speed':12} {steps:.1f} steps/s, {tokens:,.0f} tokens/s")
    print(f"{'tracing':12} {trainer.step.explain()}")
    print(f"{'memory':12} arena of {tape.memory.arena:,} bytes, nothing allocated in a step")
    for name, make in (("loss.png", _plot), ("step.svg", _draw), ("step.py", _source)):
        make(trainer, folder / name)


def _plot(trainer: Trainer, path: Path) -> None:
    title = f"Loss of the {trainer.options.task} task"
    if plots.plot_losses(trainer.losses, trainer.validation, title, path):
        print(f"{'loss':12} {path}")
    else:
        print(f"{'loss':12} {plots.sparkline(trainer.losses)}   {plots.INSTALL}")


def _draw(trainer: Trainer, path: Path) -> None:
    tape = trainer.step.tapes[-1]
    print(f"{'graph':12} {draw_or_text(lambda p: tape.draw(p, 'traced'), path)}")


def draw_or_text(draw: Callable[[Path], Path], path: Path) -> str:
    """Where the picture is: as asked for, or as Graphviz text where `dot` is not installed."""
    try:
        return str(draw(path))
    except DrawError as error:
        text = draw(path.with_suffix(".dot"))
        return f"{text} (as text: {str(error).splitlines()[0]})"


def _source(trainer: Trainer, path: Path) -> None:
    replace_file(path, trainer.step.tapes[-1].source.encode())
    print(f"{'source':12} {path}")
