"""Whatever stops a step in its middle, the state is that before it or that after it.

Interrupts come at every point of the tape and of what calls it, in turn, and at random times into
a process that trains; errors come from kernels, from NumPy's error settings and from filters.
"""

import dis
import signal
import subprocess
import sys
import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers import parameter
from programs import RandomProgram, forward_and_reverse, gpt_step, mlp_step

import numtape as nt
from numtape import nn, optim
from numtape.ir.op import REGISTRY, Op
from numtape.ir.types import Type
from numtape.runtime import commit
from numtape.runtime.layout import may_fail

PACKAGE = Path(nt.__file__).parent
RUNNING = tuple(str(PACKAGE / name) for name in ("tape.py", "turns.py", "runtime/commit.py"))


# The instructions behind or in which Python answers signals.
ANSWERING = ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD")


class Interrupter:
    """Sends SIGINT to this process at the n-th point of a call at which Python answers signals.

    Counted in the tape and in what calls it; for what binds it see `test_in_flight.py`.
    """

    def __init__(self, at):
        self.at, self.count = at, 0

    def __call__(self, frame, event, _):
        code = frame.f_code
        inside = code.co_filename.startswith(("<numtape", *RUNNING)) and code.co_name != "bind"
        if not inside:
            return None
        frame.f_trace_opcodes = True
        before = ""

        def instruction(frame, event, _):
            nonlocal before
            if event == "opcode":
                self.count += before in ANSWERING
                if self.count == self.at and before in ANSWERING:
                    signal.raise_signal(signal.SIGINT)
                before = dis.opname[code.co_code[frame.f_lasti]]
            return instruction

        return instruction


def interrupted(call, at):
    """Whether the call came to its n-th such point and was interrupted."""
    tracer, before = Interrupter(at), sys.gettrace()
    sys.settrace(tracer)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    assert tracer.count < at, "an interrupt was lost"
    return False


def torn(call, tensors):
    """Where an interrupt leaves the tensors neither as before nor as after a call.

    Also at how many points it left them as before, and as after.
    """
    call()
    start = [t.numpy().copy() for t in tensors]
    call()
    end = [t.numpy().copy() for t in tensors]
    found, counts, at = [], [0, 0], 1
    while True:
        for tensor, array in zip(tensors, start, strict=True):
            tensor.assign(array)
        if not interrupted(call, at):
            return found, counts
        now = [t.numpy() for t in tensors]
        which = [all(map(np.array_equal, now, side)) for side in (start, end)]
        if not any(which):
            found.append(at)
        counts[which[1]] += 1
        at += 1


def state_of(function):
    """The tensors that a training step of `programs` updates, and the random state."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
    held = [cells[name].cell_contents.state_tensors() for name in ("model", "optimizer")]
    return [*(t for state in held for t in state.values()), nt.random.default.state]


STEPS = {
    "mlp with dropout": mlp_step,
    "gpt with dropout": lambda: gpt_step(layers=1, dropout=0.1),
}


@pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)
def test_training_step_interrupted_everywhere(make):
    function, arguments = make()
    compiled = nt.compile(function)
    found, (before, after) = torn(lambda: compiled(*arguments), state_of(function))
    assert found == []
    assert before > 50
    assert after > 5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["update", "learn"])
def test_random_programs_interrupted_everywhere(seed, kind):
    program = RandomProgram(seed, **{kind: True})
    compiled = nt.compile(program)
    with np.errstate(all="ignore"):
        found, _ = torn(lambda: compiled(*program.arguments), program.state)
    assert found == []


def test_arguments_and_gradients_are_left_together():
    weight, given = parameter(1.0, 2.0, 3.0), nt.Tensor(np.ones(3))

    @nt.compile
    def step(x):
        weight.grad = None
        (x * weight).sum().backward()
        weight.assign(weight - 0.1)
        x.assign(x * 2.0)

    found, (before, after) = torn(lambda: step(given), [weight, given])
    assert found == []
    assert min(before, after) > 3


def test_reverse_tape_may_follow_an_interrupt():
    function, arguments = forward_and_reverse()
    compiled = nt.compile(function)
    compiled(*arguments)
    for at in range(1, 40, 3):
        if not interrupted(lambda: compiled(*arguments), at):
            break
    loss = compiled(*arguments)
    loss.backward()
    assert np.isfinite(function.__closure__[0].cell_contents.grad.numpy()).all()


# ---- signals ------------------------------------------------------------------------------


def test_handlers_are_as_they_were():
    seen = []
    handler = lambda *which: seen.append(which)
    before = {n: signal.signal(n, handler) for n in (signal.SIGTERM, signal.SIGUSR1)}
    try:

        def action():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGUSR1)
            assert seen == []
            return "done"

        assert commit.uninterrupted(action) == "done"
        assert [number for number, _ in seen] == [signal.SIGUSR1, signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def test_interrupt_is_raised_when_the_action_has_ended():
    done = []

    def action():
        signal.raise_signal(signal.SIGINT)
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        commit.uninterrupted(action)
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


TRAINING = """
import numpy as np, sys
import numtape as nt
from numtape import nn, optim
from numtape.tracer.recorder import no_grad

nt.random.seed(0)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64))
optimizer = optim.AdamW(model.parameters(), lr=1e-3)
x = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
count = nt.tensor(0.0)

@nt.compile
def step(x):
    count.assign(count + 1.0)
    loss = (model(x) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

def state():
    tensors = {**model.state_tensors(), **optimizer.state_tensors()}
    return [t.numpy().copy() for t in (*tensors.values(), count, nt.random.default.state)]

def same(a, b):
    return all(map(np.array_equal, a, b))

step(x)
print("ready", flush=True)
interrupts = torn = 0
while interrupts < 25:
    before = now = state()
    try:
        while True:
            before = state()
            step(x)
    except KeyboardInterrupt:
        interrupts += 1
        now = state()
        for tensor, array in zip(
            (*{**model.state_tensors(), **optimizer.state_tensors()}.values(), count,
             nt.random.default.state), before, strict=True):
            tensor.assign(array)
        step(x)
        torn += not (same(now, before) or same(now, state()))
        print("torn" if torn else "whole", flush=True)
"""


def test_real_interrupts_at_random_times():
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    rng = np.random.default_rng(1)
    try:
        assert process.stdout.readline() == "ready\n"
        for _ in range(25):
            time.sleep(rng.uniform(0.002, 0.02))
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "whole\n"
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


# ---- errors -------------------------------------------------------------------------------


@cache
def failing_op():
    """An op of the user's, whose kernel refuses negative entries."""

    def kernel(x, out):
        if (x < 0).any():
            raise ArithmeticError("negative on purpose")
        np.copyto(out, x)

    return Op("refuses", lambda x: Type(x.dtype, x.shape), kernel=kernel)


def test_numtapes_own_kernels_do_not_fail():
    failing = {op.name for op in REGISTRY.values() if may_fail(_node(op))}
    assert failing == {"wrap_index"}


def _node(op):
    class Node:
        pass

    Node.op = op
    return Node


def test_error_in_a_kernel_of_the_users_changes_nothing():
    first, second = nt.tensor(np.ones(3)), nt.tensor(np.ones(3))
    refuses = failing_op()

    @nt.compile
    def step(x):
        first.assign(first * 2.0)
        second.assign(refuses(first + x))

    step(np.zeros(3))
    with pytest.raises(ArithmeticError, match="on purpose"):
        step(np.full(3, -9.0))
    assert (first.tolist(), second.tolist()) == ([2.0] * 3, [2.0] * 3)
    step(np.zeros(3))
    assert (first.tolist(), second.tolist()) == ([4.0] * 3, [4.0] * 3)


def overflowing():
    """A step whose second update overflows where x is large."""
    first, second = nt.tensor(np.ones(3)), nt.tensor(np.ones(3))

    @nt.compile
    def step(x):
        first.assign(first + 1.0)
        second.assign(first * x * x)

    return step, first, second


def test_floating_point_error_in_an_update_is_raised_behind_it():
    step, first, second = overflowing()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow") as error:
        step(np.full(3, 1e300))
    assert "<numtape step" in str(error.value)
    assert (first.tolist(), second.tolist()) == ([2.0] * 3, [np.inf] * 3)
    with np.errstate(over="raise"):
        step(np.ones(3))  # says nothing of the call before
    assert second.tolist() == [3.0] * 3


def test_warning_made_an_error_comes_behind_the_update():
    step, first, second = overflowing()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="overflow"):
            step(np.full(3, 1e300))
    assert (first.tolist(), second.tolist()) == ([2.0] * 3, [np.inf] * 3)
    with np.errstate(over="ignore"):
        step(np.full(3, 1e300))
    assert first.tolist() == [3.0] * 3


def test_floating_point_errors_are_passed_on_as_asked():
    step, *_ = overflowing()
    called = []
    with np.errstate(over="call", call=lambda kind, flag: called.append((kind, flag))):
        step(np.full(3, 1e300))
    assert called == [("overflow", 2)]


def test_floating_point_error_before_the_updates_changes_nothing():
    model = nn.Linear(3, 2)
    optimizer = optim.AdamW(model.parameters())

    @nt.compile
    def step(x):
        loss = (model(x) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    x = np.ones((2, 3), np.float32)
    step(x)
    optimizer.zero_grad()
    before = {**model.state_dict(), **optimizer.state_dict()}
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        step(x * 1e30)
    after = {**model.state_dict(), **optimizer.state_dict()}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_argument_that_cannot_take_its_update_is_refused_first():
    count = nt.tensor(0.0)

    @nt.compile
    def step(x):
        count.assign(count + 1.0)
        x.assign(x * 2.0)

    x = np.ones(3)
    step(x)
    x.flags.writeable = False
    with pytest.raises(TypeError, match="assigns to x, which cannot be changed in place"):
        step(x)
    assert count.item() == 1.0
