"""PyTorch, `torch.compile` with its default backend: model and loss one graph, fused AdamW."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.contestants import torch_eager


class Contestant(torch_eager.Contestant):
    """As in eager mode, with the forward pass (and so the reverse one) compiled."""

    def prepared(self, function: Callable) -> Callable:
        return torch.compile(function, fullgraph=True)

    def facts(self) -> dict[str, Any]:
        return {}
