"""The picture of an arena: which bytes belong to whom, and from when to when.

Reads the slots of a runtime plan, writes a standalone SVG: instructions to the right, addresses
upwards, a rectangle for each slot.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Protocol

from numtape.inspect.files import replace_file
from numtape.inspect.look import FONT, INK, PARTS, SOFT, Colour, number_of_bytes
from numtape.inspect.places import parts
from numtape.ir.graph import Graph, Value, line, numbering

WIDTH, HEIGHT = 960, 480
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 72, 48  # the margins around the plot
KIB, MIB = 1 << 10, 1 << 20
UNKNOWN = Colour("#e5e9ef", "#7d8794")
GRID = 'stroke="#e1e5ea"'


class Slot(Protocol):
    """What the picture needs to know of a piece of the arena; `stop` is the last use."""

    @property
    def name(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


def memory_map_svg(
    slots: Sequence[Slot],
    path: str | os.PathLike[str] | None = None,
    graph: Graph | None = None,
    title: str = "Arena",
) -> str:
    """The picture as SVG text, also written to `path` where one is given.

    With the `graph` that the slots' names (`%7`) belong to, slots are coloured by the part of the
    step and tell their op, type and line of code when pointed at.
    """
    drawn = _Map(slots, graph).svg(title)
    if path is not None:
        replace_file(path, drawn.encode())
    return drawn


class _Map:
    def __init__(self, slots: Sequence[Slot], graph: Graph | None) -> None:
        self.slots = slots
        self.values = _by_name(graph) if graph else {}
        self.names = numbering(graph) if graph else {}
        self.parts = parts(graph) if graph else {}
        self.first = min((s.start for s in slots), default=0)
        self.last = max((s.stop + 1 for s in slots), default=1)
        self.size = max((s.offset + s.nbytes for s in slots), default=0)
        self.unit, self.unit_name = (MIB, "MiB") if self.size >= MIB else (KIB, "KiB")

    def x(self, instruction: float) -> float:
        width = WIDTH - LEFT - RIGHT
        return LEFT + width * (instruction - self.first) / max(self.last - self.first, 1)

    def y(self, address: float) -> float:
        height = HEIGHT - TOP - BOTTOM
        return HEIGHT - BOTTOM - height * address / max(self.size, 1)

    def svg(self, title: str) -> str:
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            f' font-family="{FONT}" font-size="11" fill="{SOFT}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            _text(LEFT, 26, title, f'font-size="16" font-weight="bold" fill="{INK}"'),
            _text(LEFT, 44, self._summary()),
            *self._legend(),
            *self._grid(),
            *map(self._slot, self.slots),
            *self._fullest(),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _summary(self) -> str:
        total = sum(s.nbytes for s in self.slots)
        return (
            f"{len(self.slots):,} slots of {number_of_bytes(total)} together"
            f" share a peak of {number_of_bytes(self.size)}"
        )

    def _colour(self, slot: Slot) -> Colour:
        value = self.values.get(slot.name)
        return PARTS[self.parts[value]] if value is not None else UNKNOWN

    def _slot(self, slot: Slot) -> str:
        colour = self._colour(slot)
        x, top = self.x(slot.start), self.y(slot.offset + slot.nbytes)
        width, height = self.x(slot.stop + 1) - x, self.y(slot.offset) - top
        return (
            f'<rect x="{x:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}"'
            f' fill="{colour.fill}" stroke="{colour.line}" stroke-width="0.5">'
            f"<title>{escape(self._about(slot))}</title></rect>"
        )

    def _about(self, slot: Slot) -> str:
        value = self.values.get(slot.name)
        name = (
            line(value, self.names)
            if value is not None and value.op.name != "input"
            else slot.name
        )
        return (
            f"{name}\n{number_of_bytes(slot.nbytes)} at {slot.offset:,},"
            f" instructions {slot.start} to {slot.stop}"
        )

    def _legend(self) -> Iterator[str]:
        colours = {part: PARTS[part] for part in PARTS if part in set(self.parts.values())}
        for i, (name, colour) in enumerate(colours.items()):
            x = WIDTH - RIGHT - 84 * (len(colours) - i)
            yield (
                f'<rect x="{x}" y="34" width="14" height="10" fill="{colour.fill}"'
                f' stroke="{colour.line}"/>'
            )
            yield _text(x + 20, 43, name)

    def _grid(self) -> Iterator[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for tick in _ticks(0, self.size / self.unit):
            y = self.y(tick * self.unit)
            yield _line(LEFT, y, right, y)
            yield _text(LEFT - 8, y + 4, f"{tick:g}", 'text-anchor="end"')
        for tick in _ticks(self.first, self.last):
            x = self.x(tick)
            yield _line(x, bottom, x, bottom + 4)
            yield _text(x, bottom + 17, f"{tick:g}", 'text-anchor="middle"')
        yield _text((LEFT + right) / 2, HEIGHT - 10, "instruction", 'text-anchor="middle"')
        yield _text(
            16,
            (TOP + bottom) / 2,
            f"address, {self.unit_name}",
            f'text-anchor="middle" transform="rotate(-90 16 {(TOP + bottom) / 2})"',
        )

    def _fullest(self) -> Iterator[str]:
        """A mark at the instruction at which most bytes are in use."""
        if not self.slots:
            return
        at, used = fullest(self.slots)
        x = self.x(at + 0.5)
        near_right = x > WIDTH / 2
        yield _line(x, TOP - 4, x, HEIGHT - BOTTOM, f'stroke="{INK}" stroke-dasharray="3 3"')
        words = f"fullest at instruction {at}: {number_of_bytes(used)} in use"
        anchor = 'text-anchor="end"' if near_right else ""
        yield _text(x + (-5 if near_right else 5), TOP - 6, words, f'fill="{INK}" {anchor}')


def fullest(slots: Sequence[Slot]) -> tuple[int, int]:
    """The first instruction at which most bytes are in use, and how many."""
    change: dict[int, int] = {}
    for s in slots:
        change[s.start] = change.get(s.start, 0) + s.nbytes
        change[s.stop + 1] = change.get(s.stop + 1, 0) - s.nbytes
    used, best = 0, (0, -1)
    for at in sorted(change):
        used += change[at]
        if used > best[1]:
            best = (at, used)
    return best


def _by_name(graph: Graph) -> Mapping[str, Value]:
    return {name: v for v, name in numbering(graph).items() if not v.is_constant}


def _ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between two ends, about so many."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return [step * i for i in range(ceil(low / step), floor(high / step) + 1)]


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str = GRID) -> str:
    return f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" {style}/>'
