"""Who takes part: a module each, loaded only in the process that runs it.

A module has `Contestant(model, training)` with `step` (one whole step, finished when it returns),
`number` (of a step's result, to be compared) and `facts`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A contestant as tables call it, its configuration, and the models that it can run."""

    module: str
    title: str
    library: str
    configuration: str
    kinds: tuple[str, ...] = ("mlp", "gpt", "translation")
    largest: float = float("inf")  # parameters, in millions


NUMTAPE, EXACT, EAGER = "numtape_compiled", "numtape_exact", "numtape_eager"
HAND, TORCH, COMPILED, JAX = "numpy_by_hand", "torch_eager", "torch_compile", "jax_jit"
FLOOR, ABLATION = "floor", "ablation"

ENTRIES = {
    e.module: e
    for e in (
        Entry(NUMTAPE, "numtape", "numtape", "`nt.compile(step)`"),
        Entry(EXACT, "numtape, exact", "numtape", "`nt.compile(step, exact=True)`"),
        Entry(EAGER, "numtape, eager", "numtape", "the same function, not compiled"),
        Entry(
            HAND,
            "NumPy by hand",
            "numpy",
            "`benchmarks/contestants/numpy_by_hand.py`: buffers made once, `out=` everywhere, "
            "AdamW and GELU tile by tile, sums as products with ones",
        ),
        Entry(
            TORCH,
            "torch eager",
            "torch",
            "`AdamW(fused=True)`, gradients set to None, `scaled_dot_product_attention`, "
            "`inference_mode` (PyTorch's performance tuning guide)",
        ),
        Entry(
            COMPILED,
            "torch.compile",
            "torch",
            "the same, with model and loss under `torch.compile(fullgraph=True)`, default mode "
            "and backend (PyTorch's introduction to torch.compile)",
        ),
        Entry(
            JAX,
            "JAX jit",
            "jax",
            "the whole step under `jit`, parameters and moments donated "
            "(`donate_argnums`), `jax.nn.dot_product_attention` (JAX's pages on jit and buffer "
            "donation)",
        ),
        Entry(
            "autograd_eager",
            "autograd",
            "autograd",
            "`value_and_grad`, AdamW in NumPy by hand; up to 1 M parameters",
            largest=1.0,
        ),
        Entry(
            "mygrad_eager",
            "MyGrad",
            "mygrad",
            "memory guarding off, AdamW in NumPy by hand; it has no error function, hence no "
            "exact GELU, so the MLP alone",
            kinds=("mlp",),
        ),
    )
}
