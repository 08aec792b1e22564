"""Writing pictures of graphs to files: text always, images where Graphviz's `dot` is installed.

The last station of `to_dot`'s pictures; what a tape's `draw(path)` calls.
"""

import os
from pathlib import Path
from typing import Any

from graphviz import Digraph, ExecutableNotFound

from numtape.inspect.dot import to_dot
from numtape.inspect.files import replace_file
from numtape.ir.graph import Graph

TEXT = (".dot", ".gv")
IMAGES = (".svg", ".png", ".pdf")
PIXELS_PER_INCH = "144"

INSTALL = """{path} needs Graphviz's program `dot`, which is not on PATH. Install it with
  Debian, Ubuntu:  sudo apt install graphviz
  conda:           conda install -c conda-forge graphviz
  macOS:           brew install graphviz
or write a path that ends in .dot, which needs no program."""


class DrawError(RuntimeError):
    """A picture that cannot be drawn; the message says what can be done."""


def draw(graph: Graph, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write a picture of the graph and return its path.

    The ending decides: `.dot` and `.gv` are Graphviz text; `.svg`, `.png` and `.pdf` are drawn by
    the program `dot`. `options` are those of `to_dot`. An existing file is replaced only once the
    new one is complete.

    Raises `ValueError` for another ending, and `DrawError` where `dot` is missing or fails, or
    where the picture has more than `MOST_NODES` nodes, which would keep `dot` busy for minutes.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in TEXT + IMAGES:
        known = ", ".join(TEXT + IMAGES)
        raise ValueError(f"cannot tell the format of {str(path)!r}: the ending must be {known}")
    picture = to_dot(graph, **options)
    content = picture.source.encode() if ending in TEXT else _image(picture, target)
    replace_file(target, content)
    return target


def _image(picture: Digraph, target: Path) -> bytes:
    if target.suffix.lower() == ".png":
        picture.attr(dpi=PIXELS_PER_INCH)
    try:
        return picture.pipe(format=target.suffix.lower()[1:], quiet=True)
    except ExecutableNotFound:
        raise DrawError(INSTALL.format(path=target)) from None
