"""Multi-head attention (Vaswani et al., 2017, section 3.2): where positions exchange information.

Masks are boolean everywhere, True where attention is allowed.
"""

from typing import Any

from numtape.ir.interpreter import current
from numtape.ir.types import BOOL, DtypeError, ShapeError
from numtape.nn import Linear, Module
from numtape.nn.checks import check_probability, check_sizes
from numtape.nn.functional import scaled_dot_product_attention
from numtape.transformer.cache import CacheSlot, KeysValues


def padding_mask(ids: Any, pad: int = 0) -> Any:
    """Where a sequence is not padding: integers (B, T) give a boolean mask (B, 1, 1, T)."""
    held = current().lift(ids)
    if held.ndim != 2:
        raise ShapeError(f"a padding mask is made from ids of shape (B, T), not {held.type}")
    batch, length = held.shape
    return (held != pad).reshape(batch, 1, 1, length)  # (B, 1, 1, T)


def split_heads(x: Any, heads: int) -> Any:
    """(B, T, C) -> (B, H, T, C/H)."""
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)  # (B, H, T, C/H)


def join_heads(x: Any) -> Any:
    """(B, H, T, C/H) -> (B, T, C)."""
    batch, heads, length, width = x.shape
    return x.swapaxes(1, 2).reshape(batch, length, heads * width)  # (B, T, C)


class MultiHeadAttention(Module):
    """softmax(q kᵀ / √d) v in `heads` subspaces of d_model / heads dimensions each.

    With `cross` the keys and values come from another sequence. Each source is projected by one
    matrix product, which is split afterwards. Dropout falls on the attention weights.
    Raises ValueError for sizes below 1 and where `heads` does not divide `d_model`.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        cross: bool = False,
    ) -> None:
        check_sizes(d_model=d_model, heads=heads)
        check_probability("MultiHeadAttention", dropout)
        if d_model % heads:
            raise ValueError(
                f"heads={heads} does not divide d_model={d_model}; every head gets d_model / "
                "heads dimensions"
            )
        self.d_model, self.heads, self.cross = d_model, heads, cross
        if cross:
            self.q = Linear(d_model, d_model, bias)
            self.kv = Linear(d_model, 2 * d_model, bias)
        else:
            self.qkv = Linear(d_model, 3 * d_model, bias)
        self.out = Linear(d_model, d_model, bias)
        self.dropout = dropout

    def forward(
        self,
        query: Any,
        key_value: Any = None,
        mask: Any = None,
        causal: bool = False,
        cache: CacheSlot | None = None,
    ) -> Any:
        """query (B, T, C), and with `cross` key_value (B, S, C), give (B, T, C).

        key_value may also be what `keys_values` returned. mask: boolean, broadcasts to
        (B, H, T, S). causal: position t sees up to t. cache: earlier positions of `query`.
        Raises ShapeError or DtypeError for what does not fit.
        """
        self._check(query, key_value, mask)
        if self.cross:
            q = split_heads(self.q(query), self.heads)  # (B, H, T, C/H)
            k, v = key_value if isinstance(key_value, KeysValues) else self.keys_values(key_value)
        else:
            q, k, v = (split_heads(part, self.heads) for part in self.qkv(query).split(3, -1))
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, H, L, C/H)
        dropped = self.dropout if self.training else 0.0
        context = scaled_dot_product_attention(q, k, v, mask, dropped, causal)  # (B, H, T, C/H)
        return self.out(join_heads(context))

    def keys_values(self, key_value: Any) -> KeysValues:
        """The keys and values (B, H, S, C/H) of another sequence (B, S, C)."""
        k, v = self.kv(key_value).split(2, -1)
        return KeysValues(split_heads(k, self.heads), split_heads(v, self.heads))

    def _check(self, query: Any, key_value: Any, mask: Any) -> None:
        if query.ndim != 3 or query.shape[-1] != self.d_model:
            raise ShapeError(f"attention takes (B, T, {self.d_model}), not {tuple(query.shape)}")
        if self.cross == (key_value is None):
            raise ShapeError(
                "cross attention needs the sequence it attends to as key_value"
                if self.cross
                else "self-attention takes no key_value; build it with cross=True for that"
            )
        if key_value is not None and not isinstance(key_value, KeysValues):
            self._check_memory(query, key_value)
        if mask is None:
            return
        if mask.dtype != BOOL:
            raise DtypeError(f"a mask is boolean, True = attend, not {mask.dtype}; use mask != 0")
        if mask.ndim == 3:  # would set its batch against the heads
            raise ShapeError(
                f"a mask per sentence has an axis for the heads, (B, 1, T, S), not {mask.shape}"
            )

    def _check_memory(self, query: Any, key_value: Any) -> None:
        batch = query.shape[0]
        shape = tuple(key_value.shape)
        if len(shape) != 3 or (shape[0], shape[2]) != (batch, self.d_model):
            raise ShapeError(
                f"cross attention of {tuple(query.shape)} takes a key_value of shape "
                f"({batch}, S, {self.d_model}), not {shape}"
            )
