"""The `numtape` command: reads the arguments, calls `training`, and turns errors into one line."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from numtape import __version__
from numtape.cli import decode, graph, train
from numtape.inspect.draw import DrawError
from numtape.ir.location import Located
from numtape.training.errors import CheckpointError, DataError, TrainingError

PROGRAM = "numtape"
FAILED, INTERRUPTED = 2, 130
ALIKE = 0.7  # how much of an option's name must be right for a guess at what was meant
ERRORS = (CheckpointError, DataError, DrawError, ImportError, OSError, TrainingError, ValueError)


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line, and suggests the option that was meant."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)  # what is short now may be two later

    def error(self, message: str) -> NoReturn:
        known = [option[2:] for option in self._option_string_actions if option.startswith("--")]
        for word in message.replace(":", " ").replace("=", " ").split():
            name = word.removeprefix("--")
            close = difflib.get_close_matches(name, known, 1, ALIKE) if name != word else []
            if close and name not in known:
                message += f"; did you mean --{close[0]}?"
        self.exit(FAILED, f"{PROGRAM}: error: {message} (all options: {self.prog} --help)\n")


def make_parser() -> Parser:
    """The parser of all commands and their options."""
    parser = Parser(prog=PROGRAM, description="Train Transformers as plain NumPy programs.")
    parser.add_argument("--version", action="version", version=f"numtape {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (train.add, decode.add_translate, decode.add_generate, graph.add):
        command = add(commands)
        command.set_defaults(parser=command, debug=False)
        command.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error, or 130 after Ctrl-C."""
    given, unknown = make_parser().parse_known_args(arguments)
    if unknown:
        given.parser.error(f"unknown: {' '.join(unknown)}")
    try:
        return given.run(given)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ERRORS as error:
        if given.debug:
            raise
        # The line of a model's error would be one of numtape's own.
        reason = error.reason if isinstance(error, Located) else error
        print(f"{PROGRAM}: error: {reason}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
