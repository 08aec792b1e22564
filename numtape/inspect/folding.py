"""Equal layers as one: which boxes of a picture repeat, and what stands for what.

Used by `scene`. Two sibling modules `layers.i` are equal when their values are, one by one and in
order: same op, type, attributes and inner wiring. The first of a run of equal ones is kept.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from numtape.ir.graph import Graph, Value

Path = tuple[str, ...]


def numbered(name: str) -> bool:
    """Whether a box is one of several siblings, as `layers.0` is."""
    return name.rpartition(".")[2].isdigit()


@dataclass(frozen=True)
class Folding:
    """What was folded.

    stands  a folded value -> the drawn value that stands for it.
    runs    a kept box -> all boxes it stands for, itself first.
    kept    a box of a run -> the kept box of the run.
    """

    stands: dict[Value, Value]
    runs: dict[Path, list[Path]]
    kept: dict[Path, Path]

    def are_copies(self, one: Path, other: Path) -> bool:
        """Whether two places lie in different boxes of one run."""
        for length in range(1, min(len(one), len(other)) + 1):
            a, b = one[:length], other[:length]
            if a != b:
                return a in self.kept and self.kept[a] == self.kept.get(b)
        return False

    def title(self, path: Path) -> str:
        """A box's name: `layers.0`, or `layers.0-5 ×6` when it stands for others."""
        run = self.runs.get(path)
        if run is None:
            return path[-1]
        numbers = [int(p[-1].rpartition(".")[2]) for p in run]
        stem = path[-1].rpartition(".")[0]
        if numbers == list(range(numbers[0], numbers[-1] + 1)):
            stem = f"{stem}.{numbers[0]}–{numbers[-1]}".lstrip(".")
        return f"{stem}  ×{len(run)}"


def fold_equal(
    values: Sequence[Value],
    place: Mapping[Value, Path],
    part: Mapping[Value, str],
    loose: str,
) -> Folding:
    """Fold every run of equal numbered siblings, outer boxes first.

    In the outermost box called `loose` the repetitions have no order and may differ in shape.
    """
    folder = _Folder(values, place, part, loose)
    folder.fold(())
    stands = folder.stands
    for v, other in stands.items():
        while other in stands:  # kept by an outer fold, folded by an inner one
            other = stands[other]
        stands[v] = other
    return Folding(stands, folder.runs, folder.kept)


class _Folder:
    def __init__(
        self,
        values: Iterable[Value],
        place: Mapping[Value, Path],
        part: Mapping[Value, str],
        loose: str,
    ) -> None:
        self.place, self.part, self.loose = place, part, loose
        self.members: dict[Path, list[Value]] = {}
        self.children: dict[Path, dict[Path, None]] = {}
        for v in values:
            path = place[v]
            for length in range(1, len(path) + 1):
                self.members.setdefault(path[:length], []).append(v)
                self.children.setdefault(path[: length - 1], {})[path[:length]] = None
        self.stands: dict[Value, Value] = {}
        self.runs: dict[Path, list[Path]] = {}
        self.kept: dict[Path, Path] = {}

    def fold(self, path: Path) -> None:
        """Fold the children of a box, then what is inside the kept ones."""
        for run in self._runs(path):
            if len(run) > 1:
                self._merge(run)
            self.fold(run[0])

    def _merge(self, run: list[Path]) -> None:
        self.runs[run[0]] = run
        self.kept.update(dict.fromkeys(run, run[0]))
        for other in run[1:]:
            pairs = zip(self.members[other], self.members[run[0]], strict=True)
            self.stands.update(pairs)

    def _runs(self, path: Path) -> Iterator[list[Path]]:
        families: dict[str, list[Path]] = {}
        for child in self.children.get(path, ()):
            stem = child[-1].rpartition(".")[0] if numbered(child[-1]) else child[-1]
            families.setdefault(stem, []).append(child)
        for siblings in families.values():
            if len(siblings) == 1:
                yield siblings
                continue
            seen = {p: self._signature(p) for p in siblings}
            yield from self._grouped(siblings, seen)

    def _grouped(self, siblings: list[Path], seen: dict[Path, Hashable]) -> Iterator[list[Path]]:
        """Neighbours that are equal, or any that are where there is no order."""
        if siblings[0][0] == self.loose:
            first = {signature: i for i, signature in reversed(list(enumerate(seen.values())))}
            siblings = sorted(siblings, key=lambda p: first[seen[p]])
        else:
            siblings = sorted(siblings, key=lambda p: int(p[-1].rpartition(".")[2]))
        for _, run in groupby(siblings, key=seen.__getitem__):
            yield list(run)

    def _signature(self, path: Path) -> Hashable:
        """What two boxes must share to be equal."""
        shaped = path[0] != self.loose
        inside = {v: (self.place[v][len(path) :], self.part[v]) for v in self.members[path]}
        return _wiring(inside, shaped)


def _wiring(values: Mapping[Value, Hashable], shaped: bool = True) -> Hashable:
    """The values with their notes as data that is equal for equal computations."""
    index = {v: i for i, v in enumerate(values)}

    def end(x: Value) -> Hashable:
        if x in index:
            return index[x]
        if x.is_constant:
            return "constant", repr(x.attrs["value"])
        return "outside", _type(x, shaped)

    return tuple(
        (v.op.name, _type(v, shaped), _attributes(v, shaped), note, tuple(map(end, v.inputs)))
        for v, note in values.items()
    )


def _type(value: Value, shaped: bool) -> Hashable:
    return value.type if shaped else value.type.dtype


def _attributes(value: Value, shaped: bool) -> Hashable:
    if not shaped:
        return ()
    return tuple((name, _comparable(a)) for name, a in value.attrs.items())


def _comparable(attribute: Any) -> Hashable:
    if isinstance(attribute, Graph):  # graphs compare by identity
        results = set(attribute.results)
        inner = (*attribute.inputs, *attribute.nodes)
        return _wiring({v: v in results for v in inner})
    return attribute
