"""The command line interface of `muse`: options and error messages."""

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
from . import Failure, bulk, doctor, inputs, keys, outputs, usage
from .login import SavedLogin, add_credential_options, credential

DESCRIPTION = "Computes sentence embeddings and tokens with MUSE as Service."
BULK = """\
INPUT is a text file with a sentence per line (.txt), a CSV or TSV file with a header (.csv, .tsv), JSON lines (.jsonl)
or Parquet (.parquet); - is standard input. OUTPUT is {outputs}. Results have the order of the input.
The same command resumes interrupted work. Until all sentences are done, the results are in OUTPUT.part.
The credential is the API key in the environment variable MUSE_API_KEY, otherwise the login of 'muse login'."""


VERDICTS = {True: "ok", False: "FAILED", None: "skipped"}


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
    parser.add_argument("--version", action="version", version=f"muse {version('muse-as-service')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    login = commands.add_parser("login", help="log in; the login is saved for the following commands")
    _add_service_options(login, user="user name; prompted for on a terminal")
    login.set_defaults(run=_login)

    logout = commands.add_parser("logout", help="revoke the tokens of the login and delete it")
    logout.set_defaults(run=_logout)

    check = commands.add_parser("doctor", help="check a service")
    _add_service_options(check, user="user name; without it, checks that need a login are skipped")
    check.set_defaults(run=_doctor)

    embed = commands.add_parser("embed", help="convert the sentences of a file to vectors")
    embed.description = BULK.format(outputs="a numpy array of float32 (.npy), JSON lines or Parquet")
    _add_bulk_options(embed, "embedding")
    tokenize = commands.add_parser("tokenize", help="convert the sentences of a file to tokens")
    tokenize.description = BULK.format(outputs="JSON lines or Parquet")
    _add_bulk_options(tokenize, "tokens")
    keys.add_commands(commands)
    usage.add_command(commands)
    return parser


def _add_service_options(command: argparse.ArgumentParser, user: str) -> None:
    command.add_argument("url", nargs="?", default="http://localhost:5000", help="URL of the service (%(default)s)")
    command.add_argument("--user", help=user)
    command.add_argument("--ca-file", help="PEM file with the CA certificates to trust instead of the system's")
    command.epilog = "muse prompts for the password on a terminal, else reads the first line of standard input."


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
            raise Failure("no user name: use --user if standard input is not a terminal")
        print("user: ", end="", file=sys.stderr, flush=True)
        user = sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("password: ") if terminal else sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise Failure("no password: pass it in the first line of standard input, or type it on a terminal")
    return user, password


def _doctor(options: argparse.Namespace) -> None:
    with SavedLogin(options.url, options.ca_file).client() as client:
        url = client.url
    user = None if options.user is None else _user_and_password(options.user)
    failed = 0
    for check, passed, text in doctor.examine(url, options.ca_file, user):
        print(f"{VERDICTS[passed]:7} {check:8} {text}", flush=True)
        failed += passed is False
    if failed:
        raise Failure(f"{failed} of the checks failed")


def _logout(options: argparse.Namespace) -> None:
    login = SavedLogin.read()
    with login.client() as client:
        try:
            client.logout()
        except AuthenticationError:
            # The tokens are invalid already.
            login.save(None)
    print(f"logged out of {login.url}")


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
