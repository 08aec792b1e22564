"""`numtape graph`: a picture of a model's loss and its gradients."""

import argparse
from pathlib import Path
from typing import Any

from numtape.inspect.dot import DETAILS
from numtape.tape import STAGES
from numtape.training.folder import load_model
from numtape.training.graphs import EXAMPLES, draw_or_text, example_model, loss_tape


def add(commands: Any) -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = commands.add_parser(
        "graph",
        help="draw the graph of a model",
        description="Draw the loss of a model, and its gradients, as a graph.",
    )
    parser.set_defaults(run=run)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "checkpoint", metavar="CHECKPOINT", nargs="?", type=Path, help="the folder of a run"
    )
    which.add_argument(
        "--model", choices=tuple(EXAMPLES), default="transformer", help="a small example"
    )
    parser.add_argument(
        "--stage",
        choices=STAGES,
        default="traced",
        help="as recorded, with its reverse part, or after the passes (default traced)",
    )
    parser.add_argument(
        "--detail", choices=DETAILS, default="auto", help="what a box is (default auto)"
    )
    parser.add_argument(
        *("-o", "--output"),
        metavar="FILE",
        type=Path,
        required=True,
        help="a path that ends in .svg, .png, .pdf or .dot",
    )
    return parser


def run(given: argparse.Namespace) -> int:
    """`numtape graph`: a model's graph, tape or memory; the exit code."""
    if given.checkpoint is not None:
        model = load_model(given.checkpoint)[0]
    else:
        model = example_model(given.model)
    print(draw_or_text(loss_tape(model), given.output, stage=given.stage, detail=given.detail))
    return 0
