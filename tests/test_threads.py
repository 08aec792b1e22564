"""Compiled functions under threads and under the garbage collector."""

import gc
import threading

import numpy as np

import numtape as nt
from numtape.runtime import blocks

ONES = np.ones(3)


def finish(*targets, seconds=60):
    """Run each target on a thread of its own; what went wrong, by its text."""
    errors = []

    def guarded(target):
        try:
            target()
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(t,), daemon=True) for t in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(t.is_alive() for t in threads)
    return errors


def test_a_call_in_flight_is_collected_while_a_block_is_taken(monkeypatch):
    weight = nt.Tensor(np.ones(1), requires_grad=True)
    loss = nt.compile(lambda x: (x * weight * weight).sum())
    cycle = [loss(ONES)]
    cycle.append(cycle)
    del cycle
    loss(ONES).backward()  # leaves a free block
    size = blocks._size

    def collecting(block):
        gc.collect()  # it may run at any allocation
        return size(block)

    monkeypatch.setattr(blocks, "_size", collecting)
    assert finish(lambda: loss(np.ones(5)), seconds=10) == []
