"""Optimizers, schedules of their learning rates, and gradient clipping."""

from numtape.optim import schedules
from numtape.optim.adam import Adam, AdamW
from numtape.optim.clipping import clip_grad_norm_
from numtape.optim.optimizer import Optimizer
from numtape.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm_", "schedules"]
