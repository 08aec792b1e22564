"""Measures everything and writes the page, its pictures and the raw figures.

python -m benchmarks [--models nano ...] [--contestants numtape_compiled ...] [--quick]
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contestants import ENTRIES, NUMTAPE
from benchmarks.depth import DEPTHS
from benchmarks.figures import draw
from benchmarks.machine import machine, sizes
from benchmarks.models import MODELS
from benchmarks.report import page
from benchmarks.rounds import ROOT, Effort, ablation, depth, measure

RAW = ROOT / "build" / "benchmarks.json"
PAGE = ROOT / "docs" / "benchmarks.md"
SECONDS = {"train": 30.0, "infer": 8.0, "ablation": 12.0}  # for the rounds of one model
STARTS = 3  # of each contestant that is quick to start, before it trains
PEERS = ("torch", "jax", "autograd", "mygrad")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--contestants", nargs="+", choices=ENTRIES, default=list(ENTRIES))
    parser.add_argument("--rounds", type=int, default=12, help="of each model, 12 by default")
    parser.add_argument("--quick", action="store_true", help="three short rounds of everything")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS, metavar="LAYERS")
    parser.add_argument("--raw", type=Path, default=RAW, help="where the raw figures go")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page goes")
    parser.add_argument("--again", action="store_true", help="page and pictures of a past run")
    return parser.parse_args()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All figures; JSON can hold them."""
    efforts = {mode: Effort(options.rounds, seconds) for mode, seconds in SECONDS.items()}
    efforts["train"] = replace(efforts["train"], starts=STARTS)
    if options.quick:
        efforts = dict.fromkeys(SECONDS, Effort(rounds=3, seconds=0.0, slice=0.02, starts=1))
    raw: dict[str, Any] = {"machine": machine(PEERS), "sizes": sizes(("numtape", *PEERS))}
    for mode in ("train", "infer"):
        raw[mode] = {}
        for name in options.models:
            _say(f"{name}, {mode}")
            raw[mode][name] = measure(options.contestants, MODELS[name], mode, efforts[mode])
    if NUMTAPE in options.contestants:
        raw["ablation"] = {}
        for name in options.models:
            _say(f"{name}, without each pass")
            raw["ablation"][name] = ablation(MODELS[name], efforts["ablation"])
        _say("compiling by depth")
        raw["depth"] = [depth(layers) for layers in options.depths]
    raw["machine"]["load at the end"] = os.getloadavg()[0]
    return raw


def _say(what: str) -> None:
    print(time.strftime("%H:%M:%S"), what, flush=True)


def main() -> None:
    options = arguments()
    if options.again:
        raw = json.loads(options.raw.read_text())
    else:
        raw = measured(options)
        options.raw.parent.mkdir(parents=True, exist_ok=True)
        options.raw.write_text(json.dumps(raw))
    pictures = options.page.parent / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    draw(raw, pictures)
    options.page.write_text(page(raw))
    print(f"wrote {options.page}, its pictures, and the raw figures to {options.raw}")


if __name__ == "__main__":
    main()
