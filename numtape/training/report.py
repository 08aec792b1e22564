"""What a run says of itself on stdout: before the first step, and after the last one."""

from pathlib import Path

from numtape.inspect.files import replace_file
from numtape.lazy import lazy
from numtape.training.evaluate import exact_match, translate, write_on
from numtape.training.graphs import draw_or_text
from numtape.training.progress import Progress
from numtape.training.trainer import Trainer
from numtape.transformer import GPT

plots = lazy("numtape.training.plots")

SAMPLES = 6
SAMPLE_TOKENS = 300
WIDEST = 60


def introduce(trainer: Trainer, folder: Path) -> None:
    """The task, the model and the first tape, which is made here."""
    model, options = trainer.task.model, trainer.options
    count = sum(p.size for p in model.parameters())
    _line("task", f"{options.task}, seed {options.seed}")
    for line in trainer.task.summary.splitlines():
        _line("data", line)
    _line("model", f"{type(model).__name__}, {count:,} parameters")
    _line("folder", f"{folder}" + (f", from step {trainer.steps}" if trainer.steps else ""))
    print("Tracing the training step ...", flush=True)
    trainer.step.tape(*trainer.task.batch(trainer.steps))


def show_samples(trainer: Trainer) -> None:
    """Text that a GPT writes, or translations of what was held out; for dates their score."""
    print()
    model, task = trainer.task.model, trainer.task
    if isinstance(model, GPT):
        print(write_on(model, task.tokenizers[0], "", SAMPLE_TOKENS))
        return
    sources, targets = task.held_out
    scored = trainer.options.task == "dates"
    found = translate(model, task.tokenizers, sources if scored else sources[:SAMPLES])
    samples = list(zip(sources, targets, found, strict=False))[:SAMPLES]
    (_show_short if scored else _show_long)(samples)
    if scored:
        score = exact_match(found, targets)
        print(f"\nExact match on {len(found):,} held-out dates: {score:.1%}")


def _show_short(samples: list[tuple[str, str, str]]) -> None:
    width = max(len(source) for source, _, _ in samples)
    for source, target, found in samples:
        wrong = "" if found == target else f"   should be {target}"
        print(f"{source:{width}}  ->  {found}{wrong}")


def _show_long(samples: list[tuple[str, str, str]]) -> None:
    for sample in samples:
        for name, text in zip(("source", "target", "found"), sample, strict=True):
            print(f"{name:8}{text}")
        print()


def report(trainer: Trainer, progress: Progress, folder: Path, seconds: float) -> None:
    """Time, speed, tracing, memory and the files."""
    tapes = trainer.step.tapes
    print()
    _line("time", f"{seconds:.1f} s in all, {progress.seconds:.1f} s of training")
    _line("speed", f"{progress.step_rate:.1f} steps/s, {progress.token_rate:,.0f} tokens/s")
    for line in trainer.step.explain().splitlines():
        _line("traced", line)
    phases = {name: sum(t.phases[name] for t in tapes) for name in tapes[0].phases}
    _line("of which", ", ".join(f"{name} {ms:.0f} ms" for name, ms in phases.items()))
    largest = max(tapes, key=lambda tape: tape.memory.arena)
    shapes = " and ".join(map(str, largest.arguments))
    _line("memory", f"{largest.memory.arena:,} bytes in the arena of the largest tape, {shapes}")
    _line("loss", plots.sparkline(trainer.losses))
    _line("", _plot(trainer, folder / "loss.png"))
    # As traced: passes unfold the layers into steps that are no longer quite equal.
    picture = draw_or_text(largest, folder / "step.svg", stage="traced", detail="modules")
    _line("graph", f"{picture}, of that tape as traced")
    replace_file(folder / "step.py", largest.source.encode())
    _line("source", f"{folder / 'step.py'}, of that tape")
    _line("model", f"{folder}, at step {trainer.steps}")


def _plot(trainer: Trainer, path: Path) -> str:
    title = f"Loss of the task: {trainer.options.task}"
    if plots.plot_losses(trainer.losses, trainer.validation, title, path):
        return str(path)
    return "as a picture with matplotlib: pip install matplotlib"


def _line(name: str, text: str) -> None:
    print(f"{name:10}{text}", flush=True)
