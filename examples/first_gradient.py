"""Tensors, gradients, gradients of gradients, and what compiling makes of a function.

Run: python examples/first_gradient.py
"""

import numpy as np

import numtape as nt


def energy(x: nt.Tensor) -> nt.Tensor:
    """The potential of a particle between two valleys: x⁴ - x², summed over particles."""
    return (x**4 - x**2).sum()


def eager() -> None:
    """Each operation computes at once; `backward()` walks back over what was recorded."""
    x = nt.tensor([-1.0, 0.25, 2.0], requires_grad=True)
    energy(x).backward()
    print("x                 ", x.numpy())
    print("energy'(x)        ", x.grad.numpy())
    print("by hand, 4x³ - 2x ", 4 * x.numpy() ** 3 - 2 * x.numpy())


def higher() -> None:
    """`grad` turns a function into the function of its gradient, as often as wanted."""

    def cube(x: nt.Tensor) -> nt.Tensor:
        return x**3

    slope = nt.grad(cube)
    curvature = nt.grad(slope)
    print("x³, its slope and its curvature at 2:", *(f(2.0) for f in (cube, slope, curvature)))


def compiled() -> None:
    """`compile` records the operations once per shape and replays them as NumPy calls."""
    force = nt.compile(nt.grad(energy))
    x = np.linspace(-1.0, 1.0, 5, dtype=np.float32)
    print("compiled equals eager:", np.array_equal(force(x).numpy(), nt.grad(energy)(x).numpy()))

    tape = force.tape(x)
    print("\nThe graph as traced:\n")
    print(tape.graph("traced"))
    print("\nThe program that replays it:\n")
    print(tape.source)


def descend() -> None:
    """A whole step in one tape: the position is state that the function updates."""
    x = nt.tensor(np.linspace(-1.0, 1.0, 5), dtype=np.float32)

    @nt.compile
    def step(rate: float) -> nt.Tensor:
        value, slope = nt.value_and_grad(energy)(x)
        x.assign(x - rate * slope)
        return value

    for i in range(40):
        value = step(0.1)
        if i % 10 == 0:
            print(f"step {i:2}  energy {value.item():.4f}")
    print("the particles lie at", x.numpy().round(4), "and ±√½ is", round(0.5**0.5, 4))


if __name__ == "__main__":
    for part in (eager, higher, compiled, descend):
        print(f"---- {part.__name__}: {part.__doc__}")
        part()
        print()
