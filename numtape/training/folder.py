"""The folder of a run: what of a `Trainer` is stored there, and how a model comes back from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from numtape import __version__
from numtape.training import checkpoint
from numtape.training.errors import CheckpointError, DataError
from numtape.training.options import MODEL, Options, changed
from numtape.training.tasks import Model, Say, Tokenizer, build_model, build_task
from numtape.training.tokens import tokenizer_from_dict
from numtape.training.trainer import Trainer, section

FOLDERS = Path("runs")


def new_folder(options: Options) -> Path:
    """The folder that the options name, or the first free one of the task.

    Raises DataError where the named one has a run in it already.
    """
    if options.out is not None:
        folder = Path(options.out)
        if checkpoint.exists(folder):
            raise DataError(
                f"{folder} has a run in it; go on with it by --resume {folder}, or give another "
                "--out"
            )
        return folder
    folder, count = FOLDERS / options.task, 1
    while checkpoint.exists(folder):
        count += 1
        folder = FOLDERS / f"{options.task}-{count}"
    return folder


def save_run(folder: Path, trainer: Trainer) -> None:
    """Replace the checkpoint; raises CheckpointError, and then the one before is intact."""
    meta = {
        "numtape": __version__,
        "options": _absolute(trainer.options).to_dict(),
        "config": trainer.task.model.config.to_dict(),
        "tokenizers": [t.to_dict() for t in trainer.task.tokenizers],
        "step": trainer.steps,
    }
    checkpoint.save(folder, trainer.state(), meta)


def resume_run(folder: Path, given: dict[str, Any], say: Say) -> Trainer:
    """The run in a folder, with some options changed, as it was when it was saved.

    Raises CheckpointError, ValueError and DataError as `checkpoint.load`, `changed` and
    `build_task` do.
    """
    arrays, meta = checkpoint.load(folder)
    stored, steps = _options(folder, meta), _part(folder, meta, "step", int)
    options = replace(changed(stored, given, frozen=MODEL), out=str(folder))
    if steps >= options.steps:
        raise DataError(
            f"the run in {folder} is at step {steps} of {options.steps}; give more --steps"
        )
    task = build_task(options, say, _part(folder, meta, "tokenizers", list))
    trainer = Trainer(task, options)
    trainer.load(arrays, steps)
    return trainer


def load_model(folder: Path) -> tuple[Model, tuple[Tokenizer, ...], Options]:
    """The model of a run, with its averaged parameters if there are any, in eval mode.

    Raises CheckpointError where there is no such run.
    """
    arrays, meta = checkpoint.load(folder)
    options = _options(folder, meta)
    config = _part(folder, meta, "config", dict)
    state = {**section(arrays, "model"), **section(arrays, "average")}
    state.pop("count", None)
    try:
        model = build_model(options.task, config, options.dtype)
        model.load_state_dict(state)
        tokenizers = tuple(map(tokenizer_from_dict, _part(folder, meta, "tokenizers", list)))
    except ValueError as error:
        raise CheckpointError(f"{folder} does not hold a model: {error}") from error
    return model.eval(), tokenizers, options


def _absolute(options: Options) -> Options:
    """The options with paths that hold wherever the run goes on."""
    return replace(
        options,
        files=tuple(str(Path(f).absolute()) for f in options.files),
        valid=tuple(str(Path(f).absolute()) for f in options.valid),
    )


def _options(folder: Path, meta: dict[str, Any]) -> Options:
    stored = _part(folder, meta, "options", dict)
    try:
        return Options.from_dict(stored)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} was not written by numtape train: {error}") from error


def _part(folder: Path, meta: dict[str, Any], name: str, kind: type) -> Any:
    if not isinstance(meta.get(name), kind):
        raise CheckpointError(
            f"{folder} was not written by numtape train: it has no {name}; give a run's folder"
        )
    return meta[name]
