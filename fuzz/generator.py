"""Random programs: lines tried one by one on numbers, so that every program runs."""

import math
from dataclasses import replace

import numpy as np

import numtape as nt
from fuzz.program import MODES, Input, Instance, Program, Step, array
from fuzz.steps import STEPS
from fuzz.steps.draw import Draw, NoOperand, Operand
from numtape import optim
from numtape.ir.memory import holder
from numtape.nn import functional as F

LARGEST = 400  # entries of a value
GREATEST = 1e3  # of its entries: beyond, it goes through tanh
LAYOUTS = ("dense", "dense", "transposed", "stepped", "reversed", "repeated")
REDUCTIONS = ("({0} * {0}).sum()", "{0}.sum()", "{0}.tanh().sum()", "({0}.sin() * 0.5).sum()")
OPTIMIZERS = (
    "optim.SGD({0}, lr=0.05)",
    "optim.SGD({0}, lr=0.05, momentum=0.9)",
    "optim.AdamW({0}, lr=0.01)",
    "optim.Adam({0}, lr=0.01)",
)
REFUSALS = (nt.TraceError, ValueError, TypeError, IndexError, RuntimeError, ArithmeticError)
_WEIGHTS = np.array([weight for weight, _ in STEPS])
_CHANCES = _WEIGHTS / _WEIGHTS.sum()


def generate(seed: int) -> Program:
    """The program of a seed; it has run once, step by step, in eager mode."""
    for attempt in range(20):
        program = _Generator(seed, attempt).program()
        try:
            # A tape is made for gradients that come from all results, so they have to exist.
            for options in (program.options, program.options | {"some": False}):
                made = Instance(replace(program, options=options))
                made.run(made.function)
            return program
        except REFUSALS:  # a gradient through what was assigned, and the like
            continue
    return Program(seed, {0: Input((2,), "f8")}, (Step(1, "v0 * 2.0"),), (1,))


class _Generator:
    def __init__(self, seed: int, attempt: int) -> None:
        self.seed = seed
        self.rng = np.random.default_rng([seed, attempt])
        self.mode = str(self.rng.choice(MODES, p=[0.25, 0.25, 0.1, 0.2, 0.2]))
        self.inputs: dict[int, Input] = {}
        self.steps: list[Step] = []
        self.known: dict[str, nt.Tensor] = {}
        self.dtype = str(self.rng.choice(["f8", "f4", ""], p=[0.55, 0.3, 0.15]))
        self.count = 0

    def program(self) -> Program:
        with np.errstate(all="ignore"):
            self._give()
            for _ in range(int(self.rng.integers(3, 11))):
                self._add()
                if self.mode in ("values", "training", "split") and self.rng.random() < 0.2:
                    (self._assign if self.rng.random() < 0.5 else self._assign_all)()
        return self._finished().pruned()

    # ---- inputs ----------------------------------------------------------------------------

    def _give(self) -> None:
        nt.random.seed(self.seed)
        draw = Draw(self.rng, [])
        base = tuple(draw.length() for _ in range(draw.number(1, 3)))
        base = (draw.length(),) * 5 if draw.maybe(0.03) else base
        roles = ["argument", "argument"]
        learning = self.mode in ("training", "split")
        roles += [draw.one(("argument", "parameter" if learning else "state", "state"))]
        roles += ["parameter" if learning else "state"] * draw.number(0, 2)
        roles += ["parameter"] if learning else []
        for role in roles:
            self._input(draw, base, role)
        if draw.maybe(0.3):
            self._input(draw, base, "argument", draw.one(("i8", "i4", "u1", "b1")))

    def _input(self, draw: Draw, base: tuple[int, ...], role: str, dtype: str = "") -> None:
        shape = tuple(1 if draw.maybe(0.15) else n for n in base)
        shape = shape[draw.number(0, len(shape) - 1) :] if draw.maybe(0.3) else shape
        shape = (draw.length(), *shape) if draw.maybe(0.15) and len(shape) < 5 else shape
        dtype = dtype or self.dtype or draw.one(("f8", "f4"))
        layout = draw.one(LAYOUTS) if role == "argument" else "dense"
        given = Input(shape, dtype, layout, role)
        self.inputs[self.count] = given
        values = np.array(array(given, (self.seed * 1009 + self.count) * 7))
        self._know(nt.Tensor(values))

    def _know(self, value: nt.Tensor) -> str:
        name = f"v{self.count}"
        self.known[name] = value
        self.count += 1
        return name

    # ---- steps -----------------------------------------------------------------------------

    def _draw(self) -> Draw:
        operands = [Operand.of(n, t.numpy()) for n, t in self.known.items()]
        return Draw(self.rng, operands)

    def _add(self) -> None:
        draw = self._draw()
        for _ in range(12):
            made = STEPS[int(self.rng.choice(len(STEPS), p=_CHANCES))][1]
            try:
                text = made(draw)
                value = self._tried(text)
            except (NoOperand, *REFUSALS):
                continue
            if isinstance(value, nt.Tensor) and value.size <= LARGEST and value.ndim <= 5:
                self._append(text, value)
                return

    def _tried(self, text: str) -> nt.Tensor:
        names = {"nt": nt, "np": np, "F": F, "optim": optim, **self.known}
        return eval(text, names)

    def _append(self, text: str, value: nt.Tensor) -> None:
        # Division by zero is allowed to happen; what only grows is not.
        finite = value.numpy()[np.isfinite(value.numpy())] if value.dtype.kind == "f" else ()
        if len(finite) and np.abs(finite).max() > GREATEST:
            text, value = f"({text}).tanh()", value.tanh()
        self.steps.append(Step(self.count, text))
        self._know(value)

    def _assign(self) -> None:
        """State takes a new value; views of the old one are not used any more."""
        draw = self._draw()
        targets = [n for n, i in self.inputs.items() if i.role in ("state", "argument")]
        if self.mode != "values":
            targets = [n for n in targets if self.inputs[n].role == "state"]
        if not targets:
            return
        target = f"v{draw.one(targets)}"
        old = self.known[target]
        try:
            able = lambda v: v.shape == old.shape and v.dtype == old.dtype and v != target
            value = draw.value("fiub", able)
        except NoOperand:
            return
        mixed = draw.one((f"{value}", f"{target} * 0.5 + {value} * 0.5", f"{value} - {target}"))
        try:
            new = self._tried(mixed)
            if new.type != old.type:
                return
        except REFUSALS:
            return
        self._store(target, f"({mixed})", new)

    def _store(self, target: str, text: str, new: nt.Tensor) -> None:
        self.steps.append(Step(None, f"{target}.assign({text}.detach())"))
        old = self.known[target]
        for name in [n for n, t in self.known.items() if owner(t) is owner(old)]:
            del self.known[name]
        self.known[target] = nt.Tensor(new.numpy().copy())

    def _assign_all(self) -> None:
        """States are changed end to end, as one, and each takes its part."""
        draw = self._draw()
        dtype = draw.one(("f8", "f4"))
        states = [f"v{n}" for n in self._of_role("state") if self.inputs[n].dtype == dtype]
        if len(states) < 2:
            return
        flat = ", ".join(f"{name}.reshape(-1)" for name in states)
        change = draw.one(("* 0.5 + 0.25", ".tanh()", "* 1.0", ".flip(0)"))
        text = f"nt.concatenate([{flat}]) {change}"
        self._append(text, self._tried(text))
        whole, start = f"v{self.count - 1}", 0
        for name in states:
            shape = self.known[name].shape
            part = f"{whole}[{start}:{start + math.prod(shape)}].reshape({shape})"
            self._store(name, part, self._tried(part))
            start += math.prod(shape)

    # ---- results ---------------------------------------------------------------------------

    def _finished(self) -> Program:
        able = [int(n[1:]) for n in self.known]
        learned = {id(owner(self.known[f"v{n}"])) for n in self._of_role("parameter")}
        fresh = [n for n in able if id(owner(self.known[f"v{n}"])) not in learned]
        made = [n for n in fresh if n not in self.inputs] or fresh or able
        chosen = [int(n) for n in self.rng.choice(made, min(len(made), 3), replace=False)]
        outputs = tuple(dict.fromkeys([*chosen, made[-1]]))
        floats = tuple(n for n in outputs if self.known[f"v{n}"].dtype.kind == "f")
        mode = self.mode if floats else "values"
        if mode in ("gradient", "second") and not self._has_float_arguments():
            mode = "values"
        program = Program(self.seed, self.inputs, tuple(self.steps), outputs, mode)
        return replace(
            program,
            floats=floats,
            outputs=floats if mode in ("gradient", "second") else outputs,
            reduction=str(self.rng.choice(REDUCTIONS)),
            optimizer=str(self.rng.choice(OPTIMIZERS)),
            options={
                "tile": int(self.rng.choice([0, 0, 48, 96, 144, 500])),
                "budget": bool(self.rng.random() < 0.04),
                "some": bool(self.rng.random() < 0.5),
                "clip": bool(self.rng.random() < 0.3),
                "laid": bool(self.rng.random() < 0.5),
            },
        )

    def _of_role(self, role: str) -> list[int]:
        able = (n for n, i in self.inputs.items() if i.role == role)
        return [n for n in able if f"v{n}" in self.known]

    def _has_float_arguments(self) -> bool:
        return any(i.role == "argument" and i.dtype[0] == "f" for i in self.inputs.values())


def owner(tensor: nt.Tensor) -> np.ndarray:
    """The array whose memory a tensor looks at; of nothing as well."""
    return holder(tensor.numpy())
