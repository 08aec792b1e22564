"""What a model is made of, as frozen values that checkpoints store as plain dictionaries."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from numtape.nn.checks import check_sizes
from numtape.transformer.feed_forward import known_activation


class _Config:
    """Checks shared by the configurations, and their way to and from a dictionary."""

    def to_dict(self) -> dict[str, Any]:
        """Field names and plain values; `from_dict` takes it back."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The configuration that `to_dict` stored; `ValueError` names unknown fields."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(stored) - known):
            raise ValueError(f"{cls.__name__} has no {unknown}; its fields are {sorted(known)}")
        return cls(**stored)

    def _require_positive(self, *names: str) -> None:
        check_sizes(**{name: getattr(self, name) for name in names})

    def _check_block(self, d_model: int, heads: int, experts: int, activation: str) -> None:
        if d_model % heads:
            raise ValueError(f"heads={heads} does not divide d_model={d_model}")
        if experts < 0:
            raise ValueError(f"experts is 0 (a plain feed-forward) or more, got {experts}")
        known_activation(activation)


@dataclass(frozen=True)
class TransformerConfig(_Config):
    """The encoder-decoder of Vaswani et al. (2017); the defaults are its base model.

    tie_embeddings: False, True (target embedding = output projection) or "all" (also = source
    embedding, which needs one shared vocabulary). `experts` > 0 replaces each feed-forward by a
    mixture of that many. `max_length` bounds source and target; `pad` marks source padding.
    """

    src_vocab: int
    tgt_vocab: int
    d_model: int = 512
    heads: int = 8
    layers: int = 6
    d_ff: int = 2048
    dropout: float = 0.1
    pre_norm: bool = False
    tie_embeddings: bool | str = False
    activation: str = "relu"
    experts: int = 0
    max_length: int = 1024
    pad: int = 0

    def __post_init__(self) -> None:
        self._require_positive("src_vocab", "tgt_vocab", "d_model", "heads", "layers", "d_ff")
        self._require_positive("max_length")
        self._check_block(self.d_model, self.heads, self.experts, self.activation)
        if self.tie_embeddings not in (False, True, "all"):
            raise ValueError(
                f"tie_embeddings is False, True or 'all', got {self.tie_embeddings!r}"
            )
        if self.tie_embeddings == "all" and self.src_vocab != self.tgt_vocab:
            raise ValueError(
                "tie_embeddings='all' needs one vocabulary for source and target, but their "
                f"sizes are {self.src_vocab} and {self.tgt_vocab}; use tie_embeddings=True"
            )


@dataclass(frozen=True)
class GPTConfig(_Config):
    """A decoder-only model; `context` is the longest sequence it sees at once.

    `d_ff` None stands for 4 * d_model. `bias` False leaves out the biases of all linear layers
    and layer norms.
    """

    vocab: int
    context: int
    d_model: int
    heads: int
    layers: int
    dropout: float = 0.0
    bias: bool = False
    experts: int = 0
    activation: str = "gelu"
    d_ff: int | None = None

    def __post_init__(self) -> None:
        self._require_positive("vocab", "context", "d_model", "heads", "layers")
        if self.d_ff is not None:
            self._require_positive("d_ff")
        self._check_block(self.d_model, self.heads, self.experts, self.activation)
