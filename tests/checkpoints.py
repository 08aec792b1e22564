"""A small checkpoint whose arrays tell the step that they are of."""

from pathlib import Path

import numpy as np

from numtape.training.checkpoint import load

META = {"step": 7, "seed": 2**60, "loss": 0.1 + 0.2, "name": "größer", "list": [1, None, True]}


def arrays_of(step: int) -> dict[str, np.ndarray]:
    return {"a.weight": np.full((3, 4), step, np.float32), "count": np.array(step, np.int64)}


def tensor_file(folder: Path) -> Path:
    (path,) = folder.glob("tensors-*.safetensors")
    return path


def assert_step(folder: Path, *steps: int) -> int:
    """The folder holds the whole checkpoint of one of these steps."""
    arrays, meta = load(folder)
    assert meta["step"] in steps
    for name, expected in arrays_of(meta["step"]).items():
        assert arrays[name].dtype == expected.dtype
        assert np.array_equal(arrays[name], expected)
    return int(meta["step"])
