"""numtape: a training step traced once and replayed as one plain NumPy program."""

from numtape import ir, nn, optim, transformer
from numtape.compiler import compile
from numtape.functions import (
    abs,
    arange,
    argmax,
    argmin,
    broadcast_to,
    clip,
    concatenate,
    cos,
    cumsum,
    einsum,
    erf,
    exp,
    expand_dims,
    expm1,
    flip,
    full,
    index_add,
    isfinite,
    log,
    log1p,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    moveaxis,
    ones,
    ones_like,
    outer,
    pad,
    power,
    reshape,
    sigmoid,
    sign,
    sin,
    split,
    sqrt,
    square,
    squeeze,
    stack,
    std,
    sum,
    swapaxes,
    take,
    tanh,
    transpose,
    tril,
    triu,
    var,
    where,
    zeros,
    zeros_like,
)
from numtape.tracer import random
from numtape.tracer.recorder import no_grad
from numtape.tracer.tensor import Tensor, TraceError, tensor
from numtape.tracer.trace import trace
from numtape.tracer.transforms import grad, value_and_grad

__version__ = "0.1.0"
