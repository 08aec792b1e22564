"""Small training runs for tests."""

from pathlib import Path

from numtape.training.options import PRESETS, Options, changed
from numtape.training.tasks import build_task
from numtape.training.trainer import Trainer

DATA = Path(__file__).parents[1].parent / "shared" / "data"
SMALL = {"d_model": 8, "heads": 2, "layers": 1, "d_ff": 8, "eval_every": 4, "save_every": 3}


def silent(text: str) -> None:
    pass


def text_options(text: str, **settings: object) -> Options:
    given = {**SMALL, "files": (text,), "context": 8, "batch": 2, "steps": 8, **settings}
    return changed(PRESETS["text"], given)


def pair_options(pairs: tuple[str, str], **settings: object) -> Options:
    sizes = {"vocab": 0, "max_length": 16, "batch_tokens": 64, "shapes": 1, "steps": 8}
    return changed(PRESETS["pairs"], {**SMALL, "files": pairs, **sizes, **settings})


def trained(options: Options, steps: int) -> Trainer:
    trainer = Trainer(build_task(options, silent), options)
    for _ in range(steps):
        trainer.advance()
    return trainer
