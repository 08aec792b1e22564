"""What a trace gives: the graph, what ties it to the world outside, and what it depended on."""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from typing import Any

from numtape.ir.graph import Graph
from numtape.ir.location import user_line
from numtape.tracer.tensor import Tensor, TraceError


@dataclass(frozen=True, eq=False)
class Watch:
    """Something static that the trace depended on; `holds()` tells whether it still is so.

    `counted` says that a change of it also changes `Structure.changes`.
    """

    what: str
    read: Callable[[], Any]
    seen: Any
    counted: bool = False

    def holds(self) -> bool:
        now = self.read()
        return now is self.seen or (
            _is_scalar(now) and type(now) is type(self.seen) and now == self.seen
        )


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | bytes | tuple)


@dataclass(frozen=True, eq=False)
class Traced:
    """A graph and what ties it to the world outside.

    captured   the tensors, arrays and `Gradient`s read from outside, in the order of the inputs
               that follow the arguments.
    targets    the tensors to which the graph's updates go: captured ones, or `("argument", i)`.
    gradients  tensors whose `.grad` was left by the function, with the position of the graph
               output that holds it, None for a gradient cleared, -1 for one used up inside.
    result     the function's result with `Output(i)` where tensors stand.
    reached    tensors that were used without being arguments, by id.
    began      an index that only tensors made by the function exceed.
    joint      the graph with a reverse part behind it, where some output can be differentiated.
    """

    graph: Graph
    joint: "Joint | None"
    arguments: int
    captured: tuple[Any, ...]
    targets: tuple[Any, ...]
    gradients: tuple[tuple[Any, int | None], ...]
    result: Any
    watches: tuple[Watch, ...]
    reached: dict[int, Any]
    began: int

    @property
    def program(self) -> Graph:
        """The graph to compile: updates of arguments are outputs, copied back after the call."""
        graph = self.joint.graph if self.joint else self.graph
        updates = list(zip(graph.updates, self.targets, strict=True))
        inward = [new for (_, new), target in updates if isinstance(target, tuple)]
        outward = [update for update, target in updates if not isinstance(target, tuple)]
        count = len(self.graph.outputs)
        outputs = (*graph.outputs[:count], *inward, *graph.outputs[count:])
        early = graph.early and (graph.early[0], graph.early[1] + len(inward))
        return replace(graph, outputs=outputs, updates=tuple(outward), early=early)


@dataclass(frozen=True)
class Gradient:
    """Stands among the captured for the `.grad` of a tensor (or argument), read at each call."""

    target: Any


@dataclass(frozen=True, eq=False)
class Joint:
    """A graph of two tapes: the reverse one takes gradients and gives gradients.

    sources  the outputs for which the late inputs are gradients.
    leaves   the tensors for which the late outputs are gradients, or `("argument", i)`.
    """

    graph: Graph
    sources: tuple[int, ...]
    leaves: tuple[Any, ...]


@dataclass(frozen=True)
class Output:
    """Stands in a result where the i-th output goes."""

    position: int


def is_place(value: Any) -> bool:
    return isinstance(value, Output)


USED_UP = -1


def settled(found: Iterable[Watch], traced: Traced) -> tuple[Watch, ...]:
    """All watches without those of caches, which the function fills at every call, not reads.

    A setting that went from nothing to something, or a flag, is still watched: the next call
    traces anew and finds it settled. A counter never settles.
    """
    every = (*found, *traced.watches)
    kept = tuple(w for w in every if w.holds() or not _is_cache(w, traced.reached))
    if all(w.holds() for w in kept):
        _refuse_own_state(traced)
    return kept


def _refuse_own_state(traced: Traced) -> None:
    """What the function makes and assigns to, as nothing tells the next call that it is there."""
    names = dict(zip(traced.graph.inputs, traced.graph.names, strict=True))
    for target, (old, _) in zip(traced.targets, traced.graph.updates, strict=True):
        if isinstance(target, Tensor) and target.index > traced.began:
            raise TraceError(
                f"at {user_line()}: the function assigns to {names[old]} ({target.type}), which "
                "every call makes anew, but a tape would keep from call to call; make it, or the "
                "optimizer or module that it belongs to, outside the function"
            )


def _is_cache(watch: Watch, used: Container[int]) -> bool:
    now = watch.read()
    if type(now) is not type(watch.seen):
        return False
    if watch.counted and type(now) in (int, float):
        raise TraceError(
            f"the traced function changes its own setting {watch.what} from {watch.seen} to "
            f"{now}, which a tape cannot repeat; keep it in a tensor and assign() that, or change "
            "it outside the compiled function"
        )
    seen = watch.seen
    if isinstance(now, Tensor) and not now.is_traced and _mentions((now, seen), used):
        raise TraceError(
            f"the traced function exchanges the tensor {watch.what} for another, which a tape "
            "cannot repeat; assign() the values instead, or exchange them outside"
        )
    return isinstance(now, Tensor | tuple) and not _mentions(seen, used)


def _mentions(mark: Any, used: Container[int]) -> bool:
    """Whether one of these tensors, by id, is what a watch saw or part of it."""
    if isinstance(mark, tuple):
        return any(_mentions(part, used) for part in mark)
    return (mark if isinstance(mark, int) else id(getattr(mark, "value", mark))) in used


def parted(gradients: Iterable[tuple]) -> tuple[list[Tensor], list[tuple]]:
    """The captured tensors whose gradients are used up, and the other entries as they are."""
    used_up, left = [], []
    for target, position in gradients:
        if position == USED_UP and isinstance(target, Tensor):
            used_up.append(target)
        else:
            left.append((target, position))
    return used_up, left
