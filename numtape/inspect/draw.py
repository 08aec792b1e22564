"""Pictures of graphs as files: text always, images where Graphviz's `dot` is installed.

The last station of `to_dot`'s pictures; what a tape's `draw(path)` calls.
"""

import os
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from graphviz import Digraph, ExecutableNotFound

from numtape.inspect.dot import to_dot
from numtape.inspect.files import replace_file
from numtape.ir.graph import Graph

TEXT = (".dot", ".gv")
IMAGES = (".svg", ".png", ".pdf")
PIXELS_PER_INCH = "144"
MOST_NODES = 1500  # measured: `dot` takes 1 s for 800 nodes, 40 s for 1,700, minutes for 3,900

INSTALL = """{path} needs Graphviz's program `dot`, which is not on PATH. Install it with
  Debian, Ubuntu:  sudo apt install graphviz
  conda:           conda install -c conda-forge graphviz
  macOS:           brew install graphviz
or give a path that ends in .dot: Graphviz's text needs no program."""

TOO_LARGE = """a picture of {count:,} nodes would keep `dot` busy for minutes (at most \
{most:,} are drawn): use detail="modules", leave fold=True, or give a path that ends in .dot"""


class DrawError(RuntimeError):
    """A picture that cannot be drawn; the message says what can be done."""


def draw(graph: Graph, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write a picture of the graph and return its path.

    The ending decides: `.dot` and `.gv` are Graphviz text; `.svg`, `.png` and `.pdf` are drawn by
    the program `dot`. `options` are those of `to_dot`. An existing file is replaced only once the
    new one is complete.

    Raises `ValueError` for another ending, and `DrawError` where `dot` is missing or fails, or
    where an image would have more than `MOST_NODES` nodes.
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
    count = sum(" -> " not in statement for statement in picture.body)
    if count > MOST_NODES:
        raise DrawError(TOO_LARGE.format(count=count, most=MOST_NODES))
    if target.suffix.lower() == ".png":
        picture.attr(dpi=PIXELS_PER_INCH)
    try:
        return picture.pipe(format=target.suffix.lower()[1:], quiet=True)
    except ExecutableNotFound:
        raise DrawError(INSTALL.format(path=target)) from None
    except CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        raise DrawError(f"`dot` could not draw {target}: {' '.join(said[:1])}") from error
