"""What the compiler did to a step: passes, the graph before and after, plan, memory, source.

Run: python examples/inspect_passes.py                   prints to the terminal
     python examples/inspect_passes.py --picture out.svg draws the graph too (needs Graphviz)
"""

import argparse

import numpy as np

import numtape as nt
from numtape import nn, optim


class Classifier(nn.Module):
    """Two layers with a norm between them."""

    def __init__(self) -> None:
        self.hidden = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.output = nn.Linear(16, 4)

    def forward(self, x: nt.Tensor) -> nt.Tensor:
        x = nn.functional.gelu(self.hidden(x))
        return self.output(self.norm(x))


def section(title: str, content: object) -> None:
    print(f"\n==== {title}\n\n{content}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", help="a path that ends in .svg, .png, .pdf or .dot")
    chosen = parser.parse_args()

    model = Classifier()
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @nt.compile
    def step(x: nt.Tensor, labels: nt.Tensor) -> nt.Tensor:
        loss = criterion(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    x = np.zeros((32, 8), np.float32)
    labels = np.zeros(32, np.int64)
    tape = step.tape(x, labels)  # compiled, not run

    section("What each pass did, and each step of planning", tape.passes)
    section("Traced: forward, reverse and update, with composites whole", tape.graph("traced"))
    section("Optimized", tape.graph("optimized"))
    section("Memory, before anything has run", tape.memory)
    section("Where every value lies, and from which kernel to which", tape.plan)
    section("Work of one step", tape.cost)
    section("The program", tape.source)
    phases = "\n".join(f"{name:15} {ms:6.1f} ms" for name, ms in tape.phases.items())
    section("Where the time of compiling went", phases)
    step(x[:16], labels[:16])
    section("Why there are two tapes", step.explain())
    if chosen.picture:
        print("\nwritten:", tape.draw(chosen.picture, stage="traced"))


if __name__ == "__main__":
    main()
