"""`numtape train`: one option for each field of `Options`, and where a run starts or goes on."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from numtape.training import run
from numtape.training.options import CHOICES, NOT_FOR, PRESETS, Options, changed, flag

INTERRUPTED = 130
UNSET = {"d_ff": "4 times --d-model", "threads": "as many as BLAS finds"}
DESCRIPTION = (
    "Train an encoder-decoder on dates (without an argument) or on parallel text (--pairs), or a "
    "GPT on any text (--text)."
)


class Setting(NamedTuple):
    """How a field of `Options` is given: its help, and what else argparse wants to know."""

    name: str
    help: str
    rest: dict[str, Any]


def _setting(name: str, help: str, type: Any = int, **rest: Any) -> Setting:
    if name in CHOICES:
        rest["choices"] = CHOICES[name]
    else:
        rest.setdefault("metavar", {int: "N", float: "X", str: "PATH"}[type])
    return Setting(name, help, {"type": type, **rest})


GROUPS: dict[str, Sequence[Setting]] = {
    "model": (
        _setting("d_model", "width of the model"),
        _setting("heads", "attention heads"),
        _setting("layers", "layers, of the encoder and of the decoder each"),
        _setting("d_ff", "width inside a feed-forward"),
        _setting("dropout", "probability of dropping a value", float),
        _setting(
            "tie_embeddings",
            "share the target's embedding with the output, or all with the source too",
            str,
        ),
        _setting("activation", "of the feed-forward", str),
        _setting("experts", "feed-forwards in a mixture; 0 is a plain one"),
        _setting("context", "tokens that a GPT sees at once"),
        _setting("max_length", "longest source or target; longer pairs are left out"),
        _setting("vocab", "tokens of the byte-pair vocabulary; 0 takes characters"),
        _setting("dtype", "of the parameters", str),
    ),
    "batches": (
        _setting("batch", "rows in a batch of text"),
        _setting("batch_tokens", "positions in a batch of pairs, source and target together"),
        _setting("shapes", "most shapes that pairs are padded to; each is traced once"),
    ),
    "optimization": (
        _setting("steps", "updates"),
        _setting("lr", "highest learning rate", float),
        _setting("min_lr", "where the cosine ends", float),
        _setting("warmup", "steps over which the learning rate rises"),
        _setting("schedule", "the learning rate after its rise", str),
        _setting("betas", "of AdamW", float, nargs=2, metavar=("B1", "B2")),
        _setting("weight_decay", "of AdamW, for matrices", float),
        _setting("clip", "largest norm of the gradients; 0 does not clip", float),
        _setting("label_smoothing", "share of the target spread over all tokens", float),
        _setting("average", "last part of the steps whose parameters are averaged", float),
        _setting("seed", "of the data, the initial values and dropout"),
    ),
    "running": (
        _setting("eval_every", "steps between two looks at the validation loss"),
        _setting("save_every", "steps between two checkpoints"),
        _setting("threads", "threads of BLAS"),
        _setting("failed_save", "what follows a save that failed: training goes on, or ends", str),
        _setting("out", "folder for all files; a new one below runs/ unless given", str),
    ),
}


def add(commands: Any) -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = commands.add_parser(
        "train",
        help="train a model",
        description=DESCRIPTION,
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(run=train)
    _add_data(parser)
    for title, settings in GROUPS.items():
        group = parser.add_argument_group(title)
        for name, text, rest in settings:
            group.add_argument(flag(name), help=text + _defaults(name), **rest)
        if title == "model":
            _add_norms(group)
    return parser


def _add_norms(group: Any) -> None:
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--pre-norm", action="store_true", help="norms before the sublayers (the default)"
    )
    where.add_argument(
        "--post-norm", dest="pre_norm", action="store_false", help="norms after the sublayers"
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    which = data.add_mutually_exclusive_group()
    which.add_argument(
        "--pairs", nargs=2, metavar=("SRC", "TGT"), help="parallel text, plain or .gz"
    )
    which.add_argument("--text", metavar="FILE", help="any text, plain or .gz")
    data.add_argument(
        "--valid",
        nargs=2,
        metavar=("SRC", "TGT"),
        help="pairs for the validation loss; the last hundredth of --pairs unless given",
    )
    data.add_argument("--resume", metavar="FOLDER", type=Path, help="go on with a run")


def _defaults(name: str) -> str:
    """The default for each task, briefly."""
    values = {
        task: _shown(name, getattr(preset, name))
        for task, preset in PRESETS.items()
        if name not in NOT_FOR[task]
    }
    different = set(values.values())
    if len(different) == 1:
        return f" (default {different.pop()})" if different != {""} else ""
    return f" (default: {', '.join(f'{task} {value}' for task, value in values.items())})"


def _shown(name: str, value: Any) -> str:
    if value is None:
        return UNSET.get(name, "")
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def train(given: argparse.Namespace) -> int:
    """Start a run or go on with one."""
    settings = _settings(given)
    if "resume" in given:
        return 0 if run.resume(given.resume, settings) else INTERRUPTED
    preset = PRESETS[settings.get("task", "dates")]
    return 0 if run.start(changed(preset, settings)) else INTERRUPTED


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Options` that the command line gives."""
    values = vars(given)
    known = {f.name for f in fields(Options)}
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    if "pairs" in given:
        settings |= {"task": "pairs", "files": tuple(given.pairs)}
    if "text" in given:
        settings |= {"task": "text", "files": (given.text,)}
    return settings
