"""`muse login` and `muse logout`."""

from __future__ import annotations

import argparse
import getpass
import sys
from contextlib import suppress
from typing import Any, Optional

from .. import AuthenticationError
from . import Failure
from .login import DEFAULT_URL, SavedLogin, argument_errors

PASSWORD_SOURCE = "muse prompts for the password on a terminal, else reads the first line of standard input."
NO_PASSWORD = "no password: pass it in the first line of standard input, or type it on a terminal"


def add_commands(commands: Any) -> None:
    """Adds `login` and `logout` to the subcommands of `muse`."""
    login = commands.add_parser("login", help="log in; the login is saved for the following commands")
    add_service_options(login, "user name; prompted for on a terminal", DEFAULT_URL)
    login.set_defaults(run=_login)

    logout = commands.add_parser("logout", help="revoke the tokens of the login and delete it")
    logout.set_defaults(run=_logout)


def add_service_options(command: argparse.ArgumentParser, user: str, default: str) -> None:
    """`default` describes the URL if there is none in the arguments."""
    command.add_argument("url", nargs="?", help=f"URL of the service ({default})")
    command.add_argument("--user", help=user)
    command.add_argument("--ca-file", help="PEM file with the CA certificates to trust instead of the system's")
    command.epilog = PASSWORD_SOURCE


def user_and_password(user: Optional[str]) -> tuple[str, str]:
    """Reads what is missing from the terminal, or the password from standard input. Raises `Failure`."""
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if user is None:
        if not terminal:
            raise Failure("no user name: use --user if standard input is not a terminal")
        _show("user: ")
        user = _line("the name of the user")
    if not user:
        raise Failure("no user name: type it, or use --user")
    password = _prompt() if terminal else _line("the password")
    if not password:
        raise Failure(NO_PASSWORD)
    return user, password


def _prompt() -> str:
    try:
        return getpass.getpass("password: ")
    except EOFError:
        # Ctrl-D; the cursor is still behind the prompt.
        _show("\n")
        raise Failure(NO_PASSWORD) from None
    except UnicodeDecodeError:
        raise Failure("the password is not valid text: set the terminal to UTF-8") from None


def _show(text: str) -> None:
    """Writes to standard error, if that is possible."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _line(what: str) -> str:
    """The next line of standard input. Errors do not quote it."""
    if sys.stdin is None:
        return ""
    try:
        # Independent of the locale, whose encoding could replace bytes.
        return sys.stdin.buffer.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError as failure:
        where = f"byte {failure.start + 1} of the first line of standard input"
        raise Failure(f"{what} is not UTF-8 ({where}): convert it to UTF-8") from None
    except OSError as failure:
        raise Failure(f"cannot read standard input: {failure.strerror}") from None


def _login(options: argparse.Namespace) -> None:
    login = SavedLogin(options.url or DEFAULT_URL, options.ca_file)
    with login.client() as client, argument_errors():
        user, password = user_and_password(options.user)
        client.login(user, password)
    print(f"logged in to {client.url} as {user}")


def _logout(options: argparse.Namespace) -> None:
    login = SavedLogin.read()
    with login.client() as client:
        try:
            client.logout()
        except AuthenticationError:
            # The tokens are invalid already.
            login.save(None)
    print(f"logged out of {login.url}")
