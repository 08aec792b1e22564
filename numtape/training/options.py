"""What a training run is made from: one frozen value, with a preset for each task.

The command line replaces fields of a preset, and a checkpoint stores the whole as a plain
dictionary, from which a run goes on.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from numtape.training.errors import DataError


@dataclass(frozen=True)
class Options:
    """The settings of a run; `NOT_FOR` names those that a task has no use for.

    task, files, validation_files   "dates", "pairs" or "text", and what is read.
    d_ff                            None stands for 4 * d_model.
    vocab                           tokens of the byte-pair vocabulary; 0 takes characters.
    batch, batch_tokens             rows of a batch of text; positions in a batch of pairs.
    lr, min_lr                      the highest learning rate, and where a cosine ends.
    average                         the last part of the training whose parameters are averaged.
    out                             the folder of the run; None takes a new one below `runs`.
    """

    task: str
    files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    d_model: int = 64
    heads: int = 4
    layers: int = 2
    d_ff: int | None = None
    dropout: float = 0.0
    pre_norm: bool = True
    tie_embeddings: str = "none"
    activation: str = "relu"
    experts: int = 0
    context: int = 64
    max_length: int = 64
    vocab: int = 0
    dtype: str = "float32"
    batch: int = 12
    batch_tokens: int = 2816
    shapes: int = 1
    steps: int = 1500
    lr: float = 2e-3
    min_lr: float = 0.0
    warmup: int = 100
    schedule: str = "cosine"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    label_smoothing: float = 0.0
    average: float = 0.0
    seed: int = 0
    eval_every: int = 250
    save_every: int = 500
    threads: int | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "warmup", "eval_every", "save_every", "batch", "context"):
            if getattr(self, name) < 1:
                raise DataError(f"{flag(name)} is at least 1, not {getattr(self, name)}")
        for name in ("lr", "min_lr", "clip", "weight_decay"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise DataError(f"{flag(name)} is not below 0, not {getattr(self, name)}")
        for name in ("dropout", "label_smoothing", "average"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise DataError(f"{flag(name)} lies in [0, 1), not at {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """Field names and plain values; `from_dict` takes it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Options":
        """The options that `to_dict` stored; raises DataError for anything else."""
        unknown = sorted(stored.keys() - {f.name for f in fields(cls)})
        if unknown or "task" not in stored:
            raise DataError(f"these are not the options of a run: unknown {unknown}")
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()
        }
        return cls(**plain)


def flag(name: str) -> str:
    """The name of a field on the command line."""
    return "--" + name.replace("_", "-")


PRESETS = {
    "dates": Options("dates"),
    "pairs": Options(
        "pairs",
        d_model=256,
        heads=4,
        layers=3,
        d_ff=1024,
        dropout=0.1,
        tie_embeddings="all",
        max_length=128,
        vocab=8000,
        batch_tokens=4096,
        shapes=8,
        steps=5000,
        lr=1e-3,
        warmup=1000,
        schedule="paper",
        weight_decay=0.0,
        label_smoothing=0.1,
        average=0.2,
        eval_every=500,
    ),
    "text": Options(
        "text",
        d_model=128,
        layers=4,
        activation="gelu",
        steps=2000,
        lr=1e-3,
        min_lr=1e-4,
        betas=(0.9, 0.99),
        weight_decay=0.1,
    ),
}

NOT_FOR = {
    "dates": {"context", "batch", "vocab", "validation_files"},
    "pairs": {"context", "batch"},
    "text": {
        *("max_length", "batch_tokens", "shapes", "pre_norm", "tie_embeddings"),
        "validation_files",
    },
}

MODEL = (
    *("d_model", "heads", "layers", "d_ff", "dropout", "pre_norm", "tie_embeddings"),
    *("activation", "experts", "context", "max_length", "vocab", "dtype"),
)


def resumed(stored: Options, given: dict[str, Any]) -> Options:
    """The options of a stored run with some changed; DataError where that means another model."""
    for name, value in given.items():
        before = getattr(stored, name)
        if name in (*MODEL, "task") and value != before:
            shown = flag(name) if name in MODEL else f"a run on {value}"
            raise DataError(
                f"{shown} would change the model: the run has {before!r}, not {value!r}; leave it "
                "out to go on with the run, or start a new one without --resume"
            )
    return replace(stored, **given)
