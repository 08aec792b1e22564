"""How pictures look: colours, type, labels and the legend, in one place for both drawings.

Labels are Graphviz's HTML-like text.
"""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple

from numtape.inspect.places import FORWARD, REVERSE, UPDATE
from numtape.ir.graph import Graph, Value
from numtape.ir.types import Type

FONT = "Helvetica,Arial,sans-serif"
INK, SOFT, FAINT = "#24292f", "#6b7280", "#b6bdc7"
BOXES = ("#f8f9fb", "#f1f3f7", "#e9edf3", "#f6f8fa")  # the backgrounds of nested modules

LONGEST = 44  # characters of an attribute
IMPLIED = ("shape", "dtype")  # attributes that the result's type shows already


class Colour(NamedTuple):
    """The fill and the border of a node."""

    fill: str
    line: str


PARTS = {
    FORWARD: Colour("#e3eefc", "#4178be"),
    REVERSE: Colour("#fdebdc", "#d2691e"),
    UPDATE: Colour("#e2f3e5", "#3a8f50"),
}
ARGUMENT = Colour("#fff6c9", "#b8940b")
CAPTURED = Colour("#ece6f7", "#7a5bb5")
OUTPUT = Colour("#24292f", "#24292f")
SAVED, READ = "#e2b48f", "#9ccaa8"  # edges into the reverse part, into the update

GRAPH = {
    "fontname": FONT,
    "fontcolor": INK,
    "fontsize": "11",
    "bgcolor": "white",
    "rankdir": "TB",
    "ranksep": "0.28",
    "nodesep": "0.16",
    "pad": "0.3",
    "labelloc": "t",
}
NODE = {
    "fontname": FONT,
    "fontcolor": INK,
    "fontsize": "11",
    "shape": "box",
    "style": "rounded,filled",
    "margin": "0.09,0.04",
    "height": "0.3",
    "width": "0",
    "penwidth": "1",
}
EDGE = {
    "fontname": FONT,
    "fontsize": "8",
    "fontcolor": SOFT,
    "color": "#7d8794",
    "arrowsize": "0.5",
}


def text(words: str, size: int = 11, colour: str = INK, bold: bool = False) -> str:
    """Words as a piece of a label."""
    inner = f"<b>{escape(words)}</b>" if bold else escape(words)
    return f'<font point-size="{size}" color="{colour}">{inner}</font>'


def label(*lines: str) -> str:
    """A label of lines that `text` made."""
    return f"<{'<br/>'.join(lines)}>"


def box(title: str, level: int, folded: bool) -> dict[str, str]:
    """The frame around a module; one that stands for others is drawn stronger."""
    return {
        "label": label(text(title, 12, bold=True)),
        "labeljust": "l",
        "style": "rounded,filled",
        "fillcolor": BOXES[(level - 1) % len(BOXES)],
        "color": "#76808f" if folded else "#c9d0d9",
        "penwidth": "2" if folded else "1",
        "margin": "10",
    }


def filled(colour: Colour) -> dict[str, str]:
    return {"fillcolor": colour.fill, "color": colour.line}


def number_of_bytes(count: int) -> str:
    """`512 B`, `4.0 KiB`, `1.5 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def plural(count: int, noun: str) -> str:
    """`1 operation`, `2,048 operations`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def call(value: Value, inputs: Iterable[Value | None]) -> str:
    """An op with the inputs that are written out: `mul(·, 0.5)`, or just `tanh` without any."""
    words = ["·" if x is None else _constant(x) for x in inputs]
    return f"{value.op.name}({', '.join(words)})" if set(words) - {"·"} else value.op.name


def _constant(value: Value) -> str:
    return _short(value.attrs["value"]) if "value" in value.attrs else value.op.name


def attributes(value: Value) -> str:
    """The attributes worth reading: `axis=(1,) keepdims`."""
    return "  ".join(_worth_reading(value.attrs))


def _worth_reading(attrs: Mapping[str, Any]) -> Iterable[str]:
    for name, value in attrs.items():
        if name in IMPLIED or value is None or value is False or isinstance(value, Graph):
            continue
        yield name if value is True else f"{name}={_short(value)}"


def _short(value: Any) -> str:
    found = f"{value:.6g}" if isinstance(value, float) else str(value)
    return found if len(found) <= LONGEST else f"{found[: LONGEST - 1]}…"


def type_text(type: Type) -> str:
    """`f32[8,64]` with narrow spaces after the commas, which read better in small print."""
    return str(type).replace(",", ", ")


# ---- the title and the legend ---------------------------------------------------------------


def heading(title: str, notes: str, legend: Mapping[str, Colour]) -> str:
    """The title over a line of notes over a legend."""
    cells = "".join(_swatch(name, colour) for name, colour in legend.items())
    return (
        '<<table border="0" cellborder="0" cellspacing="2">'
        f"<tr><td>{text(title, 18, bold=True)}</td></tr>"
        f"<tr><td>{text(notes, 11, SOFT)}</td></tr>"
        f'<tr><td><table border="0" cellborder="0" cellspacing="4"><tr>{cells}</tr></table>'
        "</td></tr></table>>"
    )


def _swatch(name: str, colour: Colour) -> str:
    return (
        f'<td border="1" color="{colour.line}" bgcolor="{colour.fill}" style="rounded"'
        f' width="18" height="12" fixedsize="true"></td><td>{text(name, 10, SOFT)}</td>'
        "<td> </td>"
    )
