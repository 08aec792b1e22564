"""`numtape translate` and `numtape generate`: what a trained model is for."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from numtape.inspect.files import replace_file
from numtape.training.data import read_lines
from numtape.training.errors import DataError
from numtape.training.evaluate import bleu, check_references, translate, write_on
from numtape.training.folder import load_model
from numtape.transformer import GPT


def at_least(lowest: float) -> Callable[[str], Any]:
    """Reads an argument as a number of the type of `lowest`; argparse's error for one below."""

    def read(words: str) -> Any:
        number = type(lowest)(words)
        if not lowest <= number < math.inf:
            raise argparse.ArgumentTypeError(f"give at least {lowest:g}, not {words}")
        return number

    read.__name__ = type(lowest).__name__  # which argparse names where it is no number at all
    return read


COUNT = at_least(1)


def add_translate(commands: Any) -> argparse.ArgumentParser:
    """The parser of `numtape translate`."""
    parser = commands.add_parser(
        "translate",
        help="translate lines with a trained model",
        description="Translate lines of text, one by one, with an encoder-decoder.",
    )
    parser.set_defaults(run=run_translate)
    _add_model(parser)
    parser.add_argument("--input", metavar="FILE", help="plain or .gz; stdin unless given")
    parser.add_argument("--output", metavar="FILE", help="stdout unless given")
    parser.add_argument("--beam", type=COUNT, default=5, help="hypotheses kept (default 5)")
    parser.add_argument(
        "--reference", metavar="FILE", help="the right translations, for the BLEU score"
    )
    return parser


def add_generate(commands: Any) -> argparse.ArgumentParser:
    """The parser of `numtape generate`."""
    parser = commands.add_parser(
        "generate",
        help="write text with a trained model",
        description="Go on with a text, one token after the other, with a GPT.",
    )
    parser.set_defaults(run=run_generate)
    _add_model(parser)
    parser.add_argument("--prompt", default="", help="how the text begins (default: a new line)")
    parser.add_argument(
        "--tokens", type=at_least(0), default=500, help="how many to add (default 500)"
    )
    parser.add_argument(
        "--temperature",
        type=at_least(0.0),
        default=0.8,
        help="0 takes the likeliest (default 0.8)",
    )
    parser.add_argument(
        "--top-k", type=COUNT, help="draw from so many likeliest; all unless given"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the draws (default 0)")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the folder of a run")
    parser.add_argument(
        "--threads", type=COUNT, metavar="N", help="threads of BLAS; as in training unless given"
    )


def run_translate(given: argparse.Namespace) -> int:
    """`numtape translate`: lines in, translations out; the exit code."""
    model, tokenizers, options = load_model(given.checkpoint)
    if isinstance(model, GPT):
        raise DataError(f"{given.checkpoint} holds a GPT; use numtape generate")
    lines = read_lines(given.input) if given.input else _read_stdin()
    reference = read_lines(given.reference) if given.reference else None
    if reference is not None:  # before translating, so that a mistake costs no time
        check_references(lines, reference)
    with threadpool_limits(given.threads or options.threads, user_api="blas"):
        found = translate(model, tokenizers, lines, given.beam, given.input or "the input")
    _write("".join(f"{text}\n" for text in found), given.output)
    if reference is not None:
        print(bleu(found, reference), file=sys.stderr)
    return 0


def run_generate(given: argparse.Namespace) -> int:
    """`numtape generate`: text that goes on from a prompt; the exit code."""
    model, tokenizers, options = load_model(given.checkpoint)
    if not isinstance(model, GPT):
        raise DataError(f"{given.checkpoint} holds an encoder-decoder; use numtape translate")
    settings = (given.tokens, given.temperature, given.top_k, given.seed)
    with threadpool_limits(given.threads or options.threads, user_api="blas"):
        print(write_on(model, tokenizers[0], given.prompt, *settings))
    return 0


def _read_stdin() -> list[str]:
    if sys.stdin.isatty():
        print("Type the lines to translate, then Ctrl-D.", file=sys.stderr)
    try:
        return sys.stdin.buffer.read().decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"the input is not UTF-8: {error}; convert it with iconv") from None


def _write(text: str, path: str | None) -> None:
    if path is None:
        sys.stdout.write(text)
    else:
        replace_file(path, text.encode())
