"""What keeps compiling quick: nodes that passes leave alone, and work that grows with the layers.

Calls are counted instead of timed, so that these tests say the same on any machine.
"""

import cProfile
import dis
import gc

import numpy as np
import pytest

import numtape as nt
from numtape import nn, optim
from numtape.passes.identities import identities
from numtape.tracer.trace import trace
from numtape.transformer import GPT


def gpt_step(layers):
    model = GPT(vocab=11, context=8, d_model=8, heads=2, layers=layers)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    def step(x, y):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step, np.zeros((2, 8), np.int64)


def test_a_pass_keeps_the_nodes_that_it_leaves_alone():
    graph = trace(lambda x: ((x * 2).exp() * 1).sqrt(), np.ones(3, np.float32)).graph
    after = identities(graph)
    assert after.inputs[0] is graph.inputs[0]
    by_name = {v.op.name: v for v in graph.nodes}
    kept = [by_name[v.op.name] is v for v in after.nodes if v.op.name in ("exp", "sqrt")]
    assert kept == [True, False]  # sqrt reads another value now


def compiled_step(layers):
    """The tape of a training step, and the function calls made to compile it."""
    step, x = gpt_step(layers)
    compiled = nt.compile(step)
    profile = cProfile.Profile()
    tape = profile.runcall(compiled.tape, x, x)
    return tape, sum(entry.callcount for entry in profile.getstats())


def calls(layers):
    return compiled_step(layers)[1]


def test_compiling_takes_work_in_proportion_to_the_layers():
    calls(1)  # what is done once for all
    few, more, many = (calls(layers) for layers in (2, 4, 8))
    assert many - more < 2.1 * (more - few)


def test_compiling_takes_few_calls_a_node():
    """From the function to the source, with twelve passes in between."""
    calls(1)
    tape, count = compiled_step(4)
    assert count < 420 * tape.graph().operations


def test_python_compiles_a_tape_in_proportion_to_its_lines():
    """A stretch with jumps is short where Python puts an instruction for each shared name."""
    step, x = gpt_step(2)
    tape = nt.compile(step).tape(x, x)
    bind = tape._tape.bind.__code__
    names = [i.opname for i in dis.get_instructions(bind) if i.opname != "EXTENDED_ARG"]
    jump = next(i for i, name in enumerate(names) if "JUMP" in name)
    assert jump < names.count("MAKE_CELL") + 20 < len(names)


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_as_it_was(on):
    def fails(x):
        raise KeyError("here")

    (gc.enable if on else gc.disable)()
    try:
        nt.compile(lambda x: x + 1).tape(np.ones(2))
        assert gc.isenabled() is on
        with pytest.raises(KeyError):
            nt.compile(fails).tape(np.ones(2))
        assert gc.isenabled() is on
    finally:
        gc.enable()
