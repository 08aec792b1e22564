"""Which kernels of a tape the time goes to, by the lines of its source."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from numtape.tape import CompiledTape

STEPS = 2
WITH_ONES = "np.matmul (sums)"


def kernel_times(tape: CompiledTape, step: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds a step by kernel, the most expensive first.

    Python's tracing adds a fraction of a microsecond to every line.
    """
    spent: Counter[int] = Counter()
    for _ in range(STEPS):
        _watch(tape.filename, step, spent)
    lines = tape.source.splitlines()
    total: Counter[str] = Counter()
    for number, seconds in spent.items():
        total[_kernel(lines[number - 1])] += 1e3 * seconds / STEPS
    return dict(total.most_common())


def _watch(filename: str, step: Callable[[], Any], spent: Counter[int]) -> None:
    last = (0, 0.0)

    def line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal last
        now = time.perf_counter()
        if last[0]:
            spent[last[0]] += now - last[1]
        last = (frame.f_lineno if event == "line" else 0, time.perf_counter())
        return line

    def call(frame: FrameType, *_: Any) -> Any:
        return line if frame.f_code.co_filename == filename else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        step()
    finally:
        sys.settrace(before)


def _kernel(line: str) -> str:
    """The function called; products whose result has an axis of 1 are sums in truth."""
    call, _, note = line.strip().partition("  # ")
    name = "loops" if call.startswith("for ") else call.partition("(")[0]
    shape = note.partition("[")[2].partition("]")[0].split(",")
    return WITH_ONES if name == "np.matmul" and "1" in shape[-2:] else name
