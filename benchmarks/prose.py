"""What the page says whatever the figures are."""

HEAD = """# Benchmarks

`make bench` makes this page, its pictures and, in `build/benchmarks.json`, the raw figures: it
sets up an environment of its own with every peer and takes about 25 minutes."""

METHOD = """## How it is measured

One thread: `OMP_NUM_THREADS`, `OPENBLAS_NUM_THREADS`, `MKL_NUM_THREADS` and torch's own count are
1, XLA's threads are off, and every process is pinned to one and the same core.

- Every contestant is a process of its own. All start from the same parameters, see the same batch,
  and must arrive at the same losses (within 0.2 % over the first three steps; for inference at the
  same logits) or the run ends with an error.
- A training step is loss, gradients and AdamW, dropout 0, float32. When a step has finished, all
  its results are there: JAX is waited for. Batches are arrays of the contestant's own kind.
- Rounds are interleaved, A B C A B C: a quarter of a second of each, or one step where that takes
  longer, in up to 12 rounds. Median and minimum are over all steps of all rounds.
- **The floor** is what the step's matrix products take alone: every call of `np.matmul` in one
  step of numtape's tape whose two factors are both matrices (an axis of length 1 makes a sum, not
  a product), in the same order, with `out=`, on arrays of the same shapes and strides, as many
  different ones as the step has. It runs in numtape's process, in turn with its steps.
- First step: from the start of the process (imports, building, starting values, compiling) to the
  first finished step; the median of up to three starts, for torch.compile the first, with an
  empty cache.
- RSS: the most memory that the process had (`VmHWM`) by the end of its third step.
- `/ best peer`: to the fastest of torch eager, torch.compile, JAX, autograd and MyGrad.
  `numtape /`: numtape's median to that of the row."""

PICTURES = """![Step times against model size](pictures/bench-time.svg)

![Time to the first step](pictures/bench-first.svg)

![Memory](pictures/bench-memory.svg)"""

INSTALLED = """## Installed size and import

Files of each package, and of it with everything that it requires, compiled Python excepted; and
the median time of its import where NumPy is there already."""
