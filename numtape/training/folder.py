"""The folder of a run: what of a `Trainer` is stored there, and how a model comes back from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from numtape import __version__
from numtape.training import checkpoint
from numtape.training.errors import CheckpointError, DataError
from numtape.training.options import MODEL, Options, changed
from numtape.training.room import require_room
from numtape.training.stored import Arrays, require_types, short
from numtape.training.tasks import (
    Model,
    Say,
    Stored,
    Tokenizer,
    build_model,
    build_task,
    fingerprints,
)
from numtape.training.tokens import tokenizer_from_dict
from numtape.training.trainer import Trainer, section
from numtape.transformer import GPTConfig, TransformerConfig

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
        "made by": _versions(),
        "options": _absolute(trainer.options).to_dict(),
        "config": trainer.task.model.config.to_dict(),
        "tokenizers": [t.to_dict() for t in trainer.task.tokenizers],
        "step": trainer.steps,
        "data": list(trainer.task.data),
    }
    checkpoint.save(folder, trainer.state(), meta)


def resume_run(folder: Path, given: dict[str, Any], say: Say) -> Trainer:
    """The run in a folder, with some options changed, as it was when it was saved.

    Raises CheckpointError, ValueError and DataError as `checkpoint.load`, `changed` and
    `build_task` do.
    """
    arrays, meta = checkpoint.load(folder)
    saved, steps = _options(folder, meta), _part(folder, meta, "step", int)
    options = replace(changed(saved, given, frozen=MODEL), out=str(folder))
    if steps >= options.steps:
        raise DataError(
            f"the run in {folder} is at step {steps} of {options.steps}; give more --steps"
        )
    if _part(folder, meta, "made by", dict) != _versions():
        say(f"It was made by {meta['made by']}, this is {_versions()}: the last bits may differ.")
    _check_data(folder, meta, saved, options)
    stored = _stored(folder, saved, meta, arrays)
    try:
        trainer = Trainer(build_task(options, say, stored), options)
    except (DataError, CheckpointError):
        raise
    except (ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(
            f"the run in {folder} cannot go on as it is: {short(error)}; start another"
        ) from error
    trainer.load(arrays, steps)
    return trainer


def load_model(folder: Path) -> tuple[Model, tuple[Tokenizer, ...], Options]:
    """The model of a run, with its averaged parameters if there are any, in eval mode.

    Raises CheckpointError where there is no such run.
    """
    arrays, meta = checkpoint.load(folder)
    options = _options(folder, meta)
    state = {**section(arrays, "model"), **section(arrays, "average")}
    state.pop("count", None)
    tokenizers, config = _stored(folder, options, meta, arrays)
    try:
        model = build_model(options.task, config, options.dtype)
        model.load_state_dict(state)
    except ValueError as error:
        raise CheckpointError(f"{folder} does not hold a model: {short(error)}") from error
    return model.eval(), tokenizers, options


def _versions() -> dict[str, str]:
    return {"numtape": __version__, "numpy": np.__version__}


def _check_data(folder: Path, meta: dict[str, Any], saved: Options, options: Options) -> None:
    """Files that a checkpoint names are read only if they are the ones that it was trained on."""
    if (options.files, options.valid) != (saved.files, saved.valid):
        return
    for path, wanted, found in zip(
        (*options.files, *options.valid),
        _part(folder, meta, "data", list),
        fingerprints(options),
        strict=False,
    ):
        if found is None or found != wanted:
            raise DataError(
                f"{path} is not what the run in {folder} was trained on: it is missing, no plain "
                "file, or changed; give the data again with --text or --pairs to go on with it"
            )


def _stored(folder: Path, options: Options, meta: dict[str, Any], arrays: Arrays) -> Stored:
    """The tokenizers and settings of a checkpoint that fit each other and its arrays."""
    config = _part(folder, meta, "config", dict)
    kind = GPTConfig if options.task == "text" else TransformerConfig
    try:
        require_types(kind, config)
        parsed = kind.from_dict(config)
        require_room(parsed, section(arrays, "model"))
        tokenizers = tuple(map(tokenizer_from_dict, _part(folder, meta, "tokenizers", list)))
        sizes = _vocabularies(parsed)
        found = [t.vocab_size for t in tokenizers]
        if found != sizes and (found * 2 != sizes or options.tie_embeddings != "all"):
            raise DataError(f"its vocabularies have {found} tokens and its model takes {sizes}")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} does not hold a model: {short(error)}") from error
    return Stored(tokenizers, config)


def _vocabularies(config: GPTConfig | TransformerConfig) -> list[int]:
    if isinstance(config, GPTConfig):
        return [config.vocab]
    return [config.src_vocab, config.tgt_vocab]


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
        raise CheckpointError(
            f"{folder} was not written by numtape train: {short(error)}; give a run's folder"
        ) from error


def _part(folder: Path, meta: dict[str, Any], name: str, kind: type) -> Any:
    if type(meta.get(name)) is not kind:
        raise CheckpointError(
            f"{folder} was not written by numtape train: it has no {name}; give a run's folder"
        )
    return meta[name]
