"""The `numtape` command: reads the arguments, calls `training`, and turns errors into one line."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from numtape.cli import train
from numtape.inspect.draw import DrawError
from numtape.training.errors import CheckpointError, DataError, TrainingError

FAILED, INTERRUPTED = 2, 130
ERRORS = (CheckpointError, DataError, DrawError, ImportError, OSError, TrainingError, ValueError)


class Parser(argparse.ArgumentParser):
    """Suggests the option that was meant."""

    def error(self, message: str) -> NoReturn:
        known = list(self._option_string_actions)
        for word in message.split():
            close = difflib.get_close_matches(word, known, 1) if word[:2] == "--" else []
            if close and word not in known:
                message += f"; did you mean {close[0]}?"
        super().error(message)


def make_parser() -> Parser:
    parser = Parser(prog="numtape", description="Train Transformers as plain NumPy programs.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (train,):
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error, or 130 after Ctrl-C."""
    given = make_parser().parse_args(arguments)
    try:
        return given.run(given)
    except KeyboardInterrupt:
        print("numtape: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ERRORS as error:
        if given.debug:
            raise
        print(f"numtape: error: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
