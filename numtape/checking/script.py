"""A case as a program that anybody can run: NumPy, numtape and nothing else."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from numtape.checking.reduction import Case
from numtape.ir.graph import Graph, Value
from numtape.passes import Pass


def script(case: Case, step: Pass | None) -> str:
    """The program that builds the graph, compiles it with the pass alone and prints both values.

    Without a pass it is compiled as it stands: only planned and written out.
    """
    names = [f"x{i}" for i in range(len(case.inputs))]
    needs, passes = _passes(step)
    given = ", ".join(names)
    tensors = ", ".join(f"nt.Tensor({name})" for name in names)
    lines = [
        "import numpy as np",
        "",
        "import numtape as nt",
        "from numtape.compiler import Compiled",
        "from numtape.ir.op import REGISTRY as ops",
        "from numtape.passes import Pass",
        "from numtape.passes.composites import composites",
        *needs,
        "",
        *(f"{name} = {_array(case, i)}" for i, name in enumerate(names)),
        "",
        "",
        *_function(case.graph, names),
        "",
        "",
        f"expected = function({tensors})",
        f"found = Compiled(function, ({passes}Pass(composites, True),))({given})",
        "for x, y in zip(expected, found, strict=True):",
        '    print("reference:", x.numpy(), "compiled:", y.numpy(), sep="\\n")',
        '    print("same:", np.array_equal(x.numpy(), y.numpy(), equal_nan=True))',
    ]
    return "\n".join(lines) + "\n"


def _function(graph: Graph, names: Sequence[str]) -> list[str]:
    known: dict[Value, str] = dict(zip(graph.inputs, names, strict=True))
    lines = [f"def function({', '.join(names)}):"]
    for i, node in enumerate(graph.nodes):
        known[node] = f"v{i}"
        lines.append(f"    v{i} = {_call(node, [known[v] for v in node.inputs])}")
    return [*lines, f"    return ({', '.join(known[v] for v in graph.outputs)},)"]


def _call(node: Value, inputs: list[str]) -> str:
    if node.is_constant:
        return f"nt.full((), {_literal(node.attrs['value'])}, {_literal(node.dtype)})"
    attrs = [f"{k}={_literal(v)}" for k, v in node.attrs.items()]
    return f'ops["{node.op.name}"]({", ".join([*inputs, *attrs])})'


def _array(case: Case, i: int) -> str:
    array = case.inputs[i]
    if i in case.drawn:
        return f"np.random.default_rng({i}).normal(size={array.shape}).astype(np.{array.dtype})"
    entries = ", ".join(map(_literal, array.reshape(-1).tolist()))
    return f'np.array([{entries}], "{array.dtype}").reshape({array.shape})'


def _literal(value: Any) -> str:
    if isinstance(value, np.dtype):
        return f'np.dtype("{value}")'
    if isinstance(value, float) and not np.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _passes(step: Pass | None) -> tuple[list[str], str]:
    """The imports of a pass, and the pass with a comma behind it."""
    if step is None:
        return [], ""
    function: Any = step.apply
    bound = getattr(function, "keywords", {}) if isinstance(function, partial) else {}
    function = function.func if isinstance(function, partial) else function
    module, name = function.__module__, function.__name__
    if getattr(sys.modules[module], name, None) is not function:
        return [
            f"# put the pass {function.__qualname__} of {module} here"
        ], f"Pass({name}, True), "
    needs = [f"from {module} import {name}"]
    if bound:
        needs.insert(0, "from functools import partial, update_wrapper")
        name = f"update_wrapper(partial({name}, **{bound}), {name})"
    return needs, f"Pass({name}, {step.exact}), "
