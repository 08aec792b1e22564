"""What the steps of compiling did: the rows of `tape.passes`, for passes and planner alike."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PassRecord:
    """What one step did: whether exact, nodes (constants apart) and bytes before and after.

    `note` is what else there is to say.
    """

    name: str
    exact: bool
    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    milliseconds: float
    note: str = ""


def timed(
    function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
) -> tuple[Result, float]:
    """The result of a call, and the milliseconds that it took."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, 1e3 * (time.perf_counter() - start)
