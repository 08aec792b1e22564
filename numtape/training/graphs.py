"""Pictures of what is trained: a model's loss and its gradients as a graph."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from numtape.compiler import compile
from numtape.inspect.draw import TEXT
from numtape.tape import CompiledTape
from numtape.training.tasks import Model, build_model, make_loss
from numtape.transformer import GPT

ROWS, LENGTH = 2, 16
SIZES = {"d_model": 64, "heads": 4, "layers": 2, "d_ff": 256, "dropout": 0.0}
EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt": ("text", {"vocab": 64, "context": 64}),
    "transformer": ("pairs", {"src_vocab": 64, "tgt_vocab": 64, "pre_norm": True}),
    "moe": ("text", {"vocab": 64, "context": 64, "experts": 4}),
}


def example_model(name: str) -> Model:
    """A small model, one of EXAMPLES."""
    task, settings = EXAMPLES[name]
    return build_model(task, {**SIZES, **settings}, "float32")


def loss_tape(model: Model) -> CompiledTape:
    """The tape of the model's loss on a small batch, with its reverse part."""
    longest = model.config.context if isinstance(model, GPT) else model.config.max_length
    ids = np.ones((ROWS, min(LENGTH, longest)), np.int32)
    return compile(make_loss(model)).tape(ids, ids)


def draw_or_text(tape: CompiledTape, path: Path, **options: Any) -> str:
    """Where the picture is: as asked for, or as Graphviz text where `dot` is not installed.

    `options` and errors are those of `CompiledTape.draw`.
    """
    if path.suffix.lower() in TEXT or shutil.which("dot"):
        return str(tape.draw(path, **options))
    text = tape.draw(path.with_suffix(TEXT[0]), **options)
    return f"{text} (as text: for {path.suffix[1:].upper()} install Graphviz)"
