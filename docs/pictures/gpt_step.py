"""Draws gpt_step.svg: a training step of a small GPT as it was traced, a box for each module.

Run: python docs/pictures/gpt_step.py (needs Graphviz's program `dot`)
"""

from pathlib import Path

import numpy as np

import numtape as nt
from numtape import nn, optim
from numtape.transformer import GPT

model = GPT(vocab=65, context=64, d_model=64, heads=4, layers=4)
criterion = nn.CrossEntropyLoss()
optimizer = optim.AdamW(model.parameters())


@nt.compile
def train_step(inputs: nt.Tensor, targets: nt.Tensor) -> nt.Tensor:
    loss = criterion(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


ids = np.zeros((8, 64), np.int64)
tape = train_step.tape(ids, ids)
print(tape.draw(Path(__file__).with_suffix(".svg"), stage="traced", detail="modules"))
