"""Lines that work entry by entry."""

from fuzz.steps.draw import ALL, BOOLEANS, FLOATS, NUMBERS, Draw, Steps, broadcast

step = Steps()
NUMBERS_OF = ("0.0", "-0.0", "1.0", "-1.0", "2.0", "0.5", "-0.3", "1", "2", "0", "-1")


@step(4)
def arithmetic(d: Draw) -> str:
    x = d.value(NUMBERS)
    return f"{x} {d.one('+-*')} {d.beside(x)}"


@step(1)
def with_booleans(d: Draw) -> str:
    x = d.value(ALL)
    return f"{x} {d.one('+*')} {d.beside(x, ALL)}"


@step(3)
def with_a_number(d: Draw) -> str:
    x, number = d.value(NUMBERS), d.one(NUMBERS_OF)
    x, y = (x, number) if d.maybe() else (number, x)
    return f"{x} {d.one('+-*')} {y}"


@step(2)
def quotient(d: Draw) -> str:
    x = d.value()
    y = d.beside(x, FLOATS)
    forms = (f"{x} / ({y} * {y} + 0.5)", f"{x} / {d.one(NUMBERS_OF[2:8])}")
    return d.one((*forms, f"1.0 / ({y}.abs() + 0.3)", f"{x} / ({y}.sigmoid() + 0.1)"))


@step(0.3)
def raw_quotient(d: Draw) -> str:
    x = d.value(NUMBERS)
    return f"{x} / {d.beside(x)}"


@step(1.5)
def extreme_of_two(d: Draw) -> str:
    x = d.value(NUMBERS)
    y = d.beside(x) if d.maybe(0.8) else d.one(NUMBERS_OF)
    return f"nt.{d.one(('maximum', 'minimum'))}({x}, {y})"


@step(1)
def powers(d: Draw) -> str:
    x = d.value()
    y = d.beside(x, FLOATS)
    whole = d.one((2, 3, 2.0, 1, 0, 4, -1, 0.5))
    forms = (f"{x} ** {whole}", f"({x}.abs() + 0.5) ** {y}.tanh()", f"2.0 ** {x}.tanh()")
    return d.one((*forms, f"({x} * {x} + 0.25) ** {d.one((0.5, -0.5, 1.5))}"))


@step(0.5)
def magnitude(d: Draw) -> str:
    x = d.value()
    return f"np.copysign({x}, {d.beside(x, FLOATS)})"


@step(1)
def whole_parts(d: Draw) -> str:
    x = d.value(NUMBERS)
    y = d.beside(x)
    divisor = d.one((f"({y}.abs() + 1)", "3", "-2") if x.dtype.kind in "iu" else ("0.5", "1.5"))
    return f"{x} {d.one(('//', '%'))} {divisor}"


UNARY = (
    "nt.exp({}.tanh())",
    "nt.exp({} * 0.5)",
    "nt.expm1({}.tanh())",
    "nt.log({0} * {0} + 0.5)",
    "nt.log({}.abs() + 0.1)",
    "nt.log1p({}.abs())",
    "nt.sqrt({0} * {0} + 0.3)",
    "{}.tanh()",
    "{}.tanh()",
    "{}.sin()",
    "{}.cos()",
    "{}.abs()",
    "-{}",
    "{}.square()",
    "nt.sign({})",
    "nt.floor({})",
    "nt.ceil({})",
    "{}.round()",
    "{}.round(1)",
    "{}.clip(-0.8, 0.6)",
    "{}.clip(0.0)",
)
ACTIVATIONS = (
    "nt.sigmoid({})",
    "F.relu({})",
    "F.silu({})",
    "F.gelu({})",
    "F.gelu({}, 'tanh')",
    "F.softplus({})",
    "F.mish({})",
    "nt.erf({})",
)
RAW = ("nt.exp({})", "nt.log({})", "nt.sqrt({})", "nt.log1p({})", "nt.expm1({})")


@step(5)
def unary(d: Draw) -> str:
    return d.one(UNARY).format(d.value(FLOATS if d.maybe(0.9) else NUMBERS))


@step(2.5)
def activation(d: Draw) -> str:
    return d.one(ACTIVATIONS).format(d.value())


@step(0.3)
def undefined_in_places(d: Draw) -> str:
    return d.one(RAW).format(d.value(NUMBERS))


@step(1.5)
def comparison(d: Draw) -> str:
    x = d.value(ALL)
    y = d.beside(x, ALL) if d.maybe(0.7) else d.one(NUMBERS_OF)
    return f"{x} {d.one(('<', '<=', '>', '>=', '==', '!='))} {y}"


@step(0.5)
def question(d: Draw) -> str:
    return f"nt.{d.one(('isfinite', 'isinf', 'isnan'))}({d.value()})"


@step(1)
def logic(d: Draw) -> str:
    x = d.value(BOOLEANS)
    y = d.beside(x, BOOLEANS)
    return d.one((f"{x} & {y}", f"{x} | {y}", f"{x} ^ {y}", f"~{x}"))


@step(2)
def selection(d: Draw) -> str:
    condition = d.value(BOOLEANS)
    x = d.beside(condition)
    y = d.value(NUMBERS, lambda v: broadcast(condition.shape, x.shape, v.shape) is not None)
    x, y = d.one(((x, y), (x, "0.0"), (d.one(NUMBERS_OF), y), (x, d.one(NUMBERS_OF))))
    return f"nt.where({condition}, {x}, {y})"


@step(1)
def masked(d: Draw) -> str:
    x = d.value()
    y = d.beside(x, FLOATS)
    return f"nt.where({x} > {y}, {x}, {d.one((y, '0.0', '-0.5'))})"


@step(1)
def conversion(d: Draw) -> str:
    dtype = d.one(("float32", "float64", "float64", "int64", "int32", "uint8", "bool"))
    x = d.value(ALL)
    whole = dtype in ("int64", "int32", "uint8") and x.dtype.kind == "f"
    # What floats out of range become as integers, C leaves open.
    source = f"({x}.tanh() * 4.0).abs()" if whole else f"{x}"
    return f"{source}.astype(np.{dtype})"


@step(0.4)
def detached(d: Draw) -> str:
    return f"{d.value()}.detach()"
