"""The command line interface of `muse`: options and error messages."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Optional

import numpy as np

from .. import MUSEClient, MUSEError, __version__
from . import Failure, authentication, bulk, doctor, inputs, keys, outputs, usage
from .login import add_credential_options, credential

DESCRIPTION = "Computes sentence embeddings and tokens with MUSE as Service."
BULK = """\
INPUT is a text file with a sentence per line (.txt), a CSV or TSV file with a header (.csv, .tsv), JSON lines (.jsonl)
or Parquet (.parquet); - is standard input. OUTPUT is {outputs}. Results have the order of the input.
The same command resumes interrupted work. Until all sentences are done, the results are in OUTPUT.part.
The credential is the API key in the environment variable MUSE_API_KEY, otherwise the login of 'muse login'."""


def run() -> None:
    """Entry point of the command; exits the process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
        sys.stdout.flush()
    except (Failure, MUSEError) as failure:
        sys.exit(_print_error(f"error: {failure}"))
    except bulk.Stopped as stopped:
        sys.exit(_print_error(str(stopped), 130))
    except KeyboardInterrupt:
        sys.exit(_print_error("stopped", 130))
    except BrokenPipeError:
        # The reader of the pipe has exited. Python would report an error when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def main(arguments: Optional[list[str]] = None) -> None:
    """Parses the arguments and runs the command. Raises `Failure`, `MUSEError` and `bulk.Stopped`."""
    options = _parser().parse_args(arguments)
    options.run(options)


def _print_error(text: str, status: int = 1) -> int:
    print(f"muse: {text}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("muse", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"muse {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    authentication.add_commands(commands)
    doctor.add_command(commands)
    embed = commands.add_parser("embed", help="convert the sentences of a file to vectors")
    embed.description = BULK.format(outputs="a numpy array of float32 (.npy), JSON lines or Parquet")
    _add_bulk_options(embed, "embedding")
    tokenize = commands.add_parser("tokenize", help="convert the sentences of a file to tokens")
    tokenize.description = BULK.format(outputs="JSON lines or Parquet")
    _add_bulk_options(tokenize, "tokens")
    keys.add_commands(commands)
    usage.add_command(commands)
    return parser


def _add_bulk_options(command: argparse.ArgumentParser, field: str) -> None:
    written = set(outputs.FORMATS.values()) - ({"npy"} if field == "tokens" else set())
    command.add_argument("input", metavar="INPUT")
    command.add_argument("output", metavar="OUTPUT")
    command.add_argument("--column", help="column or field that contains the sentences; default: sentence")
    command.add_argument(
        "--format",
        choices=list(dict.fromkeys(inputs.FORMATS.values())),
        help="format of INPUT, if its extension does not determine it",
    )
    command.add_argument(
        "--output-format", choices=sorted(written), help="format of OUTPUT, if its extension does not determine it"
    )
    command.add_argument(
        "--in-flight", type=_count, default=4, metavar="N", help="number of concurrent requests (%(default)s)"
    )
    command.add_argument(
        "--retry-for",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long to retry if the service is unavailable or overloaded (%(default)g)",
    )
    add_credential_options(command)
    command.add_argument("--overwrite", action="store_true", help="replace an existing OUTPUT")
    command.add_argument("--restart", action="store_true", help="start over and discard saved results")
    command.set_defaults(run=_bulk, field=field)


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 64:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 64")
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return seconds


def _bulk(options: argparse.Namespace) -> None:
    login, api_key = credential(options)
    source = inputs.open_inputs([options.input], inputs.Options(options.column, options.format))
    output = outputs.open_output(
        options.output, options.output_format, options.field, overwrite=options.overwrite, restart=options.restart
    )
    with login.client(grpc=options.grpc, retry_for=options.retry_for, dtype=np.float32, api_key=api_key) as client:
        bulk.run(source, output, _work(client, options.field), options.in_flight)


def _work(client: MUSEClient, field: str) -> bulk.Work:
    return client.embed if field == "embedding" else client.tokenize
