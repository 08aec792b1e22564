"""The loop over the tiles of a region, as source: parts of all tiles made once, and named."""

from collections.abc import Callable

from numtape.ir.graph import Value
from numtape.runtime.tiles import Tiles

# The variables of the loops: the names of axes, one for each that NumPy can have.
LETTERS = ("i", "j", "k", *(f"i{axis}" for axis in range(3, 64)))


class Loop:
    """Collects what the lines of a region read and write, tile by tile.

    name   of the list of tiles.      names  of whole values, by which `bind` knows them.
    fresh  makes a name that nobody has.
    """

    def __init__(
        self,
        name: str,
        tiles: Tiles,
        names: dict[Value, str],
        fresh: Callable[[str], str],
        held: Callable[[Value], bool],
    ) -> None:
        """`held` tells what has memory for one tile, under its own name."""
        self.name, self.tiles, self.names = name, tiles, names
        self._fresh, self._held = fresh, held
        self._parts: dict[str, str] = {}

    def operand(self, value: Value, deepest: int) -> str:
        """The name of a tile's part of a value, beside values of at most `deepest` axes."""
        whole = self.names[value]
        index = "" if self._held(value) else self._index(value, deepest)
        if not index:
            return whole
        part = whole + index
        if part not in self._parts:
            self._parts[part] = self._fresh(f"{whole}_t")
        return self._parts[part]

    def _index(self, value: Value, deepest: int) -> str:
        """The tile's slice, of the axes that the value has and that are not repeated."""
        cuts = []
        for axis, length in enumerate(value.shape, deepest - value.ndim):
            letter, step = LETTERS[axis] if axis <= self.tiles.axis else "", self._step(axis)
            cuts.append(f"{letter}:{letter}+{step}" if step and length > 1 else ":")
        while cuts and cuts[-1] == ":":
            cuts.pop()
        return f"[{', '.join(cuts)}]" if cuts else ""

    def _step(self, axis: int) -> int:
        return (*(1,) * self.tiles.axis, self.tiles.step)[axis] if axis <= self.tiles.axis else 0

    @property
    def bound(self) -> list[str]:
        """The list of tiles, as `bind` makes it."""
        tiles = self.tiles
        ranges = [
            f"for {LETTERS[axis]} in range(0, {length}, {self._step(axis)})"
            for axis, length in enumerate(tiles.rows[: tiles.axis + 1])
            if length > 1
        ]
        parts = [f"        {part}," for part in self._parts]
        return [
            f"{self.name} = [",
            "    (",
            *parts,
            "    )",
            *(f"    {line}" for line in ranges),
            "]",
        ]

    @property
    def head(self) -> str:
        """The line that the loop begins with."""
        variables = ", ".join(self._parts.values())
        comma = "," if len(self._parts) == 1 else ""
        return f"for {variables}{comma} in {self.name}:  # {self.tiles.count} tiles"
