"""The command line: what can be said to `muse`, and what it says when it fails."""

from __future__ import annotations

import argparse
import getpass
import os
import signal
import sys
from importlib.metadata import version
from typing import Optional

import numpy as np

from .. import AuthenticationError, MUSEClient, MUSEError
from . import Failure, bulk, doctor, inputs, outputs
from .login import SavedLogin

DESCRIPTION = "Sentences in 16 languages to vectors and tokens, with MUSE as Service."
BULK = """\
INPUT is a text file with a sentence a line (.txt), a table with a header (.csv, .tsv), JSON lines (.jsonl) or Parquet
(.parquet); - is standard input. OUTPUT is {outputs}. A result has the place of its sentence in the input.
What was stopped goes on where it was when the same command is given again; until all is done, the work is in
OUTPUT.part."""


VERDICTS = {True: "ok", False: "FAILED", None: "skipped"}


def run() -> None:
    """The command; ends the process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
        sys.stdout.flush()
    except (Failure, MUSEError) as failure:
        sys.exit(_say(f"error: {failure}"))
    except bulk.Stopped as stopped:
        sys.exit(_say(str(stopped), 130))
    except KeyboardInterrupt:
        sys.exit(_say("stopped", 130))
    except BrokenPipeError:
        # Whoever reads has enough. Python would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def main(arguments: Optional[list[str]] = None) -> None:
    """Does what the arguments say. Raises `Failure`, `MUSEError` and `bulk.Stopped`."""
    options = _parser().parse_args(arguments)
    options.run(options)


def _say(text: str, status: int = 1) -> int:
    print(f"muse: {text}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("muse", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"muse {version('muse-as-service')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    login = commands.add_parser("login", help="log in, and stay so for the commands that follow")
    _add_service_options(login, user="who logs in; asked for on a terminal")
    login.set_defaults(run=_login)

    logout = commands.add_parser("logout", help="end the login, here and on the service")
    logout.set_defaults(run=_logout)

    check = commands.add_parser("doctor", help="check that a service works, and works right")
    _add_service_options(check, user="who logs in; without, what needs a login is not checked")
    check.set_defaults(run=_doctor)

    embed = commands.add_parser("embed", help="turn the sentences of a file into vectors")
    embed.description = BULK.format(outputs="a numpy array of float32 (.npy), JSON lines or Parquet")
    _add_bulk_options(embed, "embedding")
    tokenize = commands.add_parser("tokenize", help="turn the sentences of a file into tokens")
    tokenize.description = BULK.format(outputs="JSON lines or Parquet")
    _add_bulk_options(tokenize, "tokens")
    return parser


def _add_service_options(command: argparse.ArgumentParser, user: str) -> None:
    command.add_argument("url", nargs="?", default="http://localhost:5000", help="the service (%(default)s)")
    command.add_argument("--user", help=user)
    command.add_argument("--ca-file", help="PEM file with the certificates to trust in place of the system's")
    command.epilog = "The password is asked for on a terminal, else it is the first line of standard input."


def _add_bulk_options(command: argparse.ArgumentParser, field: str) -> None:
    written = set(outputs.FORMATS.values()) - ({"npy"} if field == "tokens" else set())
    command.add_argument("input", metavar="INPUT")
    command.add_argument("output", metavar="OUTPUT")
    command.add_argument("--column", default="sentence", help="column or field with the sentences (%(default)s)")
    command.add_argument(
        "--format",
        choices=list(dict.fromkeys(inputs.FORMATS.values())),
        help="of INPUT, where its name does not say it",
    )
    command.add_argument("--output-format", choices=sorted(written), help="of OUTPUT, where its name does not say it")
    command.add_argument(
        "--in-flight", type=_count, default=4, metavar="N", help="requests under way at a time (%(default)s)"
    )
    command.add_argument(
        "--retry-for",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for a service that is away or busy (%(default)g)",
    )
    command.add_argument("--grpc", action="store_true", help="talk gRPC to the service, not REST")
    command.add_argument("--overwrite", action="store_true", help="replace an OUTPUT that is there already")
    command.add_argument(
        "--restart", action="store_true", help="begin anew, and forget what an earlier command has done"
    )
    command.set_defaults(run=_bulk, field=field)


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 64:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 64")
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return seconds


def _login(options: argparse.Namespace) -> None:
    login = SavedLogin(options.url, options.ca_file)
    with login.client() as client:
        user, password = _user_and_password(options.user)
        client.login(user, password)
    print(f"logged in to {client.url} as {user}")


def _user_and_password(user: Optional[str]) -> tuple[str, str]:
    terminal = sys.stdin.isatty()
    if user is None:
        if not terminal:
            raise Failure("who logs in? Say it with --user, where standard input is no terminal")
        print("user: ", end="", file=sys.stderr, flush=True)
        user = sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("password: ") if terminal else sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise Failure("there is no password: it is the first line of standard input, or typed on a terminal")
    return user, password


def _doctor(options: argparse.Namespace) -> None:
    with SavedLogin(options.url, options.ca_file).client() as client:
        url = client.url
    user = None if options.user is None else _user_and_password(options.user)
    bad = 0
    for check, good, text in doctor.examine(url, options.ca_file, user):
        print(f"{VERDICTS[good]:7} {check:8} {text}", flush=True)
        bad += good is False
    if bad:
        raise Failure(f"{bad} of the checks failed")


def _logout(options: argparse.Namespace) -> None:
    login = SavedLogin.read()
    with login.client() as client:
        try:
            client.logout()
        except AuthenticationError:
            # It did not hold any more.
            login.save(None)
    print(f"logged out of {login.url}")


def _bulk(options: argparse.Namespace) -> None:
    login = SavedLogin.read()
    source = inputs.open_input(options.input, options.format, options.column)
    output = outputs.open_output(
        options.output, options.output_format, options.field, overwrite=options.overwrite, restart=options.restart
    )
    with login.client(grpc=options.grpc, retry_for=options.retry_for, dtype=np.float32) as client:
        bulk.run(source, output, _work(client, options.field), options.in_flight)


def _work(client: MUSEClient, field: str) -> bulk.Work:
    return client.embed if field == "embedding" else client.tokenize
