"""What must hold of a program: the checks, and what they found.

exact    compiled with `exact=True` gives eager's bits; one NaN is like another.
default  compiled gives eager's values to within STRICT of rounding; or else, to within SPREAD
         times how far eager's own values go where every rounding operation, also of the reverse
         part, is off by up to NOISE roundings more ("ill-conditioned", and counted).
budget   under the least memory that any plan takes, the bits are the same.
proof    each plan is proved to overwrite nothing that is still needed.
slope    gradients in float64 agree with central differences along a random direction, where
         the function has one slope there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import numtape as nt
from fuzz.program import Instance, Program, flattened
from numtape.passes.fusion import fusion
from numtape.runtime import tiles
from numtape.runtime.proof import prove
from numtape.tracer import recorder

STRICT = 64  # roundings of the largest entry of a result
NOISE, RUNS, SPREAD = 4, 6, 16
ROUNDING = {
    *("add", "sub", "mul", "div", "power", "exp", "expm1", "log", "log1p", "sqrt", "square"),
    *("tanh", "sin", "cos", "matmul", "vecdot", "sum", "cumsum", "scatter_add", "add_slice"),
    "adam_scalars",
}
Arrays = list[np.ndarray]


@dataclass
class Found:
    """What the checks of one program found; `failure` names the first that did not hold."""

    failure: str = ""
    detail: str = ""
    skipped: str = ""
    refused: bool = False
    ill: bool = False
    slopes: bool = False
    budget: bool = False
    ops: set[str] = field(default_factory=set)
    pairs: set[tuple[str, str]] = field(default_factory=set)


def check(program: Program) -> Found:
    """All checks of one program. Errors of eager mode itself are the caller's."""
    found = Found()
    made = Instance(program)
    expected = made.run(made.function)
    try:
        with small(program.options.get("tile", 0)):
            _compiled(program, expected, found)
        if not found.failure and program.mode == "gradient":
            _slope(program, found)
    except nt.TraceError as error:
        found.refused, found.detail = True, str(error)
    except Exception as error:  # whatever a compiled function raises that eager does not
        found.failure, found.detail = type(error).__name__, str(error)[:400]
    return found


@contextmanager
def small(tile: int) -> Iterator[None]:
    """Regions and tiles for arrays of a few bytes; 0 leaves them as they are."""
    names = fusion.__globals__
    before = names["SMALLEST"], tiles.TILE
    if tile:
        names["SMALLEST"], tiles.TILE = 1, tile
    try:
        yield
    finally:
        names["SMALLEST"], tiles.TILE = before


def _compiled(program: Program, expected: Arrays, found: Found) -> None:
    for exact in (True, False):
        made = Instance(program)
        function = nt.compile(made.function, exact=exact)
        got = made.run(function)
        _look_at(function.tapes, found)
        differs = difference(got, expected, bits) if exact else None
        if not exact and difference(got, expected, close) is not None:
            differs = ill_conditioned(program, got, expected, found)
        if differs is not None:
            found.failure, found.detail = "exact" if exact else "default", differs
            return
        if program.options.get("budget"):
            _within_budget(program, got, exact, found)


def _look_at(tapes: Sequence[Any], found: Found) -> None:
    """Which ops the tapes are made of; an error where one overwrites what is still needed."""
    for tape in tapes:
        prove(tape.plan)
        for stage in ("joint", "optimized"):
            for node in tape.graph(stage).nodes:
                found.ops.add(node.op.name)
                found.pairs.update((v.op.name, node.op.name) for v in node.inputs)


# ---- comparing ----------------------------------------------------------------------------


def difference(
    got: Arrays, expected: Arrays, same: Callable[[np.ndarray, np.ndarray], bool]
) -> str | None:
    """The first pair that is not the same, in words."""
    if len(got) != len(expected):
        return f"{len(got)} results instead of {len(expected)}"
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"result {i} is {a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
        if not same(a, b):
            return f"result {i}: {a.ravel()[:6]} instead of {b.ravel()[:6]} {a.dtype}{a.shape}"
    return None


def bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal entries, -0 unlike 0; all NaNs are alike."""
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    equal = np.array_equal(a, b, equal_nan=True)
    return equal and np.array_equal(np.signbit(a[a == 0]), np.signbit(b[b == 0]))


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Within STRICT roundings of the largest entry; integers and booleans are equal."""
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    return _within(a, b, STRICT * np.finfo(a.dtype).eps * _scale(b))


def _scale(b: np.ndarray) -> float:
    finite = np.abs(b[np.isfinite(b)])
    return max(1.0, float(finite.max(initial=0.0)))


def _within(a: np.ndarray, b: np.ndarray, tolerance: Any) -> bool:
    usual = np.isfinite(a) & np.isfinite(b)
    same = np.array_equal(np.where(usual, 0, a), np.where(usual, 0, b), equal_nan=True)
    off = np.abs(np.where(usual, a, 0) - np.where(usual, b, 0))
    return same and bool((off <= tolerance).all())


def ill_conditioned(program: Program, got: Arrays, expected: Arrays, found: Found) -> str | None:
    """None where eager itself, with other roundings, is as far away as the compiled result."""
    noisy = [_noisy(program, seed) for seed in range(RUNS)]
    found.ill = True
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        if not close(a, b) and not _spread(a, b, [run[i] for run in noisy]):
            return f"result {i}: {a.ravel()[:6]} instead of {b.ravel()[:6]} {a.dtype}{a.shape}"
    return None


def _spread(a: np.ndarray, b: np.ndarray, noisy: Sequence[np.ndarray]) -> bool:
    if a.dtype.kind != "f":
        return any(not np.array_equal(run, b) for run in noisy)
    if not all(np.array_equal(np.isfinite(run), np.isfinite(b)) for run in noisy):
        return True
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return False
    with np.errstate(invalid="ignore"):
        far = max(float(np.nan_to_num(np.abs(run - b)).max(initial=0.0)) for run in noisy)
    return _within(a, b, SPREAD * far + STRICT * np.finfo(a.dtype).eps * _scale(b))


def _noisy(program: Program, seed: int) -> Arrays:
    made = Instance(program)
    with _other_roundings(np.random.default_rng(seed)):
        return made.run(made.function)


@contextmanager
def _other_roundings(rng: np.random.Generator) -> Iterator[None]:
    """Eager mode whose arithmetic is off by a few roundings more."""
    usual = recorder.evaluate

    def evaluate(op: Any, *rest: Any) -> Any:
        out, type_ = usual(op, *rest)
        if op.name in ROUNDING and out.dtype.kind == "f":
            step = NOISE * np.finfo(out.dtype).eps
            out = (out * (1 + step * rng.uniform(-1, 1, out.shape))).astype(out.dtype)
        return out, type_

    recorder.evaluate = evaluate
    try:
        yield
    finally:
        recorder.evaluate = usual


# ---- budgets and slopes -------------------------------------------------------------------


def _within_budget(program: Program, expected: Arrays, exact: bool, found: Found) -> None:
    made = Instance(program)
    try:
        nt.compile(made.function, exact=exact, memory=1).tape(*made.arguments(0))
    except MemoryError as error:
        least = error.least  # type: ignore[attr-defined]
        function = nt.compile(made.function, exact=exact, memory=least)
        got = made.run(function)
        _look_at(function.tapes, found)
        found.budget = True
        differs = difference(got, expected, bits)
        if differs is not None:
            found.failure, found.detail = "budget", f"exact={exact}: {differs}"


def _slope(program: Program, found: Found) -> None:
    """Gradients along a random direction against differences of the loss."""
    made = Instance(replace(program, inputs=in_float64(program)))
    if any("float32" in s.text or "detach" in s.text for s in program.steps):
        return
    given = [_without_zeros(t) for t in made.arguments(0)]
    floats = [i for i, t in enumerate(given) if t.dtype.kind == "f"]
    rng = np.random.default_rng(program.seed)
    along = [rng.normal(size=given[i].shape) for i in floats]

    def at(step: float, function: Callable[..., Any] = made.loss) -> Any:
        moved = list(given)
        for i, direction in zip(floats, along, strict=True):
            moved[i] = nt.Tensor(given[i].numpy() + step * direction)
        nt.random.seed(program.seed)
        with np.errstate(all="ignore"):
            result = function(*moved)
        return result.item() if isinstance(result, nt.Tensor) else result

    value, gradients = at(0.0, made.function)
    parts = zip(flattened(gradients), along, strict=True)
    expected, h = sum(float((g.numpy() * d).sum()) for g, d in parts), 1e-5
    value = value.item()
    found.slopes, found.failure = _agrees(at, value, expected)
    if found.failure:
        found.detail = f"the slope is {expected}, by differences {(at(h) - at(-h)) / (2 * h)}"


def _without_zeros(x: nt.Tensor) -> nt.Tensor:
    """At 0 a kink and a step, or two branches, can make up for each other, as in copysign(x, x):
    what is made of x then has a slope that no rule for either knows."""
    return nt.Tensor(np.where(x.numpy() == 0, x.dtype.type(1), x.numpy()))


def in_float64(program: Program) -> dict[int, Any]:
    """The inputs with floats of 8 bytes."""
    wide = lambda i: replace(i, dtype="f8") if i.dtype == "f4" else i
    return {n: wide(i) for n, i in program.inputs.items()}


def _agrees(at: Callable[[float], float], value: float, expected: float) -> tuple[bool, str]:
    """Whether there is a slope, by differences of three widths, and what is wrong with it."""
    found = []
    for h in (1e-4, 1e-5, 1e-6):
        right, left = (at(h) - value) / h, (value - at(-h)) / h
        found += [right, left]
    size = max(1.0, abs(value), abs(expected))
    if not np.isfinite([*found, expected, value]).all():
        return False, ""
    rough = max(abs(a - found[-1]) for a in found[2:])
    if rough > 1e-3 * size:  # a kink, a step, or too steep a bend
        return False, ""
    centre = (found[2] + found[3]) / 2
    return True, "" if abs(centre - expected) <= 1e-3 * size + 2 * rough else "slope"
