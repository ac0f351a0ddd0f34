"""The command line interface of `muse`: options and error messages."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from importlib import import_module
from typing import Any, Optional

from .. import _process
from . import Failure, Stopped
from .standard_streams import discard, print_error, reopen_closed

DESCRIPTION = "Computes sentence embeddings and tokens with MUSE as Service."
# The modules of the commands, in the order of the help. Only that of the command is imported, because the imports of
# all take longer than most commands.
MODULES = {
    "login": "authentication",
    "logout": "authentication",
    "doctor": "doctor",
    "embed": "bulk",
    "tokenize": "bulk",
    "info": "info",
    "key": "keys",
    "usage": "usage",
}


def run() -> None:
    """Entry point of the command; exits the process."""
    _process.is_command = True
    from ..errors import MUSEError

    reopen_closed()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # nohup and others ignore it on purpose.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        status = main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except Failure as failure:
        sys.exit(_print_error(f"error: {failure}", failure.status))
    except MUSEError as error:
        sys.exit(_print_error(f"error: {error}"))
    except Stopped as stopped:
        sys.exit(_print_error(str(stopped), 130))
    except KeyboardInterrupt:
        sys.exit(_print_error("stopped", 130))
    except BrokenPipeError:
        # The reader of the pipe has exited. Python would report an error when it flushes at exit.
        discard(1)
        sys.exit(1)
    except OSError as failure:
        # Commands convert the errors of their files to failures.
        discard(1)
        place = failure.filename or "cannot write standard output"
        sys.exit(_print_error(f"error: {place}: {failure.strerror}"))
    sys.exit(status)


def main(arguments: Optional[list[str]] = None) -> int:
    """Parses the arguments and runs the command. Raises `Failure`, `MUSEError` and `Stopped`."""
    options = _parse(arguments)
    status: Optional[int] = options.run(options)
    return status or 0


def _parse(arguments: Optional[list[str]]) -> argparse.Namespace:
    arguments = sys.argv[1:] if arguments is None else arguments
    first = arguments[0] if arguments else None
    if first == "--version":
        modules = []
    elif first in MODULES:
        modules = [MODULES[first]]
    else:
        modules = [*dict.fromkeys(MODULES.values())]
    parser = _parser(modules)
    options, rest = parser.parse_known_args(arguments)
    if rest and hasattr(options, "input") and all(name == "-" or not name.startswith("-") for name in rest):
        # argparse takes names only up to the next option: muse embed a.csv b.csv --column title OUTPUT
        options.input, options.output = [*options.input, options.output, *rest[:-1]], rest[-1]
    elif rest:
        advice = " (OUTPUT is the last of the names, without an option)" if {"-o", "--output"} & set(rest) else ""
        # The usage of the command.
        getattr(options, "parser", parser).error(f"unrecognized arguments: {' '.join(rest)}{advice}")
    return options


def _print_error(text: str, status: int = 1) -> int:
    print_error(f"muse: {text}")
    return status


class _PrintVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from .. import __version__

        print(f"muse {__version__}")
        parser.exit()


def _parser(modules: list[str]) -> argparse.ArgumentParser:
    """Parses the commands of these modules."""
    parser = argparse.ArgumentParser("muse", description=DESCRIPTION, allow_abbrev=False)
    version = "show program's version number and exit"
    parser.add_argument("--version", action=_PrintVersion, nargs=0, default=argparse.SUPPRESS, help=version)
    # Abbreviations of options in scripts could become ambiguous later.
    command_parser: Any = partial(argparse.ArgumentParser, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=command_parser)
    for module in modules:
        import_module(f".{module}", __package__).add_commands(commands)
    return parser
