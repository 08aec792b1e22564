"""What a training run is made from: one frozen value, with a preset for each task.

The command line replaces fields of a preset, and a checkpoint stores the whole as a plain
dictionary, from which a run goes on.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from numtape.training.stored import require_types

COUNTS = (
    *("d_model", "heads", "layers", "context", "max_length", "batch", "batch_tokens", "shapes"),
    *("d_ff", "steps", "warmup", "eval_every", "save_every", "threads"),
)

CHOICES = {
    "task": ("dates", "pairs", "text"),
    "tie_embeddings": ("none", "output", "all"),
    "activation": ("relu", "gelu", "silu"),
    "dtype": ("float32", "float64"),
    "schedule": ("paper", "cosine", "constant"),
    "failed_save": ("warn", "stop"),
}
# Far beyond what runs on a CPU: what is larger is a slip, or a file that wants to do harm.
MOST_THREADS, MOST_TOKENS = 4096, 2**24


@dataclass(frozen=True)
class Options:
    """The settings of a run; `NOT_FOR` names those that a task has no use for.

    task, files, valid   "dates", "pairs" or "text", and what is read.
    d_ff                 None stands for 4 * d_model.
    vocab                tokens of the byte-pair vocabulary; 0 takes characters.
    batch, batch_tokens  rows of a batch of text; positions in a batch of pairs.
    lr, min_lr           the highest learning rate, and where a cosine ends.
    average              the last part of the steps, whose parameters are averaged for use.
    threads              of BLAS; None takes as many as it finds.
    failed_save          "warn" goes on after a save that failed, "stop" ends the training; the
                         last save of a run must succeed either way.
    out                  the folder of the run; None takes a new one below `runs`.
    """

    task: str
    files: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
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
    batch_tokens: int = 2048
    shapes: int = 3
    steps: int = 1250
    lr: float = 3e-3
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
    # Small products gain nothing from a second thread, and lose much on a busy machine.
    threads: int | None = 1
    failed_save: str = "warn"
    out: str | None = None

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{flag(name)} is at least 1, not {value}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{flag(name)} is one of {', '.join(choices)}, not {getattr(self, name)!r}"
                )
        for name, value, most in (
            ("threads", self.threads or 1, MOST_THREADS),
            ("batch_tokens", self.batch_tokens, MOST_TOKENS),
            ("batch", self.batch * self.context, MOST_TOKENS),
        ):
            if value > most:
                raise ValueError(f"{flag(name)} makes {value:,}, and {most:,} is the most")
        if self.d_model % self.heads:
            raise ValueError(f"--heads {self.heads} does not divide --d-model {self.d_model}")
        for name in ("lr", "min_lr", "clip", "weight_decay", "experts", "vocab", "seed"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{flag(name)} is a finite number of at least 0, not {getattr(self, name)}"
                )
        for name in ("dropout", "label_smoothing", "average"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(
                    f"{flag(name)} is at least 0 and below 1, not {getattr(self, name)}"
                )
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"--betas are at least 0 and below 1, not {self.betas}")
        if self.task == "dates" and self.tie_embeddings == "all":
            raise ValueError(
                "--tie-embeddings all needs one vocabulary; dates have two, so output"
            )

    def to_dict(self) -> dict[str, Any]:
        """Field names and plain values; `from_dict` takes it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Options":
        """The options that `to_dict` stored; raises ValueError for anything else."""
        unknown = sorted(stored.keys() - {f.name for f in fields(cls)})
        if unknown or "task" not in stored:
            raise ValueError(f"these are not the options of a run: unknown {unknown}")
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()
        }
        require_types(cls, plain)
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
        d_ff=512,
        dropout=0.15,
        tie_embeddings="all",
        max_length=128,
        vocab=6000,
        batch_tokens=2000,
        shapes=8,
        steps=4000,
        lr=1e-3,
        warmup=500,
        weight_decay=0.0,
        label_smoothing=0.1,
        average=0.15,
        eval_every=500,
        threads=None,
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
        eval_every=500,
    ),
}

NOT_FOR = {
    "dates": {"context", "batch", "vocab", "valid"},
    "pairs": {"context", "batch"},
    "text": {"max_length", "batch_tokens", "shapes", "pre_norm", "tie_embeddings", "valid"},
}

MODEL = (
    *("task", "d_model", "heads", "layers", "d_ff", "dropout", "pre_norm", "tie_embeddings"),
    *("activation", "experts", "context", "max_length", "vocab", "dtype"),
)


def changed(options: Options, given: dict[str, Any], frozen: Collection[str] = ()) -> Options:
    """The options with the given ones instead of theirs.

    Raises ValueError for one that the task has no use for, or that is frozen and would change.
    """
    for name, value in given.items():
        before = getattr(options, name)
        if name in NOT_FOR[options.task]:
            raise ValueError(f"{flag(name)} does not apply to the task {options.task!r}")
        if name in frozen and value != before:
            raise ValueError(
                f"{flag(name)} {value} would change the model, which was begun with {before}; "
                "leave it out to go on with this run, or start a new one without --resume"
            )
    return replace(options, **given)
