"""The credential of commands: the saved login, or the API key in the environment."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from .. import MUSEClient, Tokens
from .._transfer import API_KEY_VARIABLE
from . import Failure
from .notices import RetryNotices

DEFAULT_URL = "http://localhost:5000"
DEFAULT_SERVICE = f"that of the login, or {DEFAULT_URL}"
"""The URL that `SavedLogin.of_options` uses, for descriptions of options."""


def path() -> Path:
    """`$XDG_STATE_HOME/muse/login.json`, with mode 0600."""
    state = os.environ.get("XDG_STATE_HOME")
    try:
        return Path(state or Path.home() / ".local/state") / "muse/login.json"
    except RuntimeError:
        raise NoHome("this user has no home directory for the login: set XDG_STATE_HOME to a folder") from None


class NoHome(Failure):
    """There is no place for the login."""


@dataclass
class SavedLogin:
    """The URL of a login, and the `TokenStore` of its tokens."""

    url: str
    ca_file: Optional[str] = None

    def __post_init__(self) -> None:
        # A later command may have another working directory.
        self.ca_file = None if self.ca_file is None else str(Path(self.ca_file).absolute())

    @classmethod
    def read(cls) -> SavedLogin:
        saved = _read()
        if saved is None:
            raise Failure("not logged in: run 'muse login' first")
        return cls(saved["url"], saved["ca_file"])

    @classmethod
    def of_options(cls, url: Optional[str], ca_file: Optional[str]) -> SavedLogin:
        """The service of commands that need no login: by default that of the login, if there is one."""
        if url is not None:
            return cls(url, ca_file)
        try:
            saved = _read()
        except NoHome:
            saved = None
        if saved is None:
            return cls(DEFAULT_URL, ca_file)
        return cls(saved["url"], ca_file or saved["ca_file"])

    def client(self, *, api_key: Optional[str] = None, **options: Any) -> MUSEClient:
        """A client with the API key, else with the saved tokens, that reports retries on standard error."""
        options = {"url": self.url, "ca_file": self.ca_file, "on_retry": RetryNotices(), **options}
        try:
            # A client with an API key does not need a place for tokens.
            return MUSEClient(api_key=api_key, **options) if api_key else MUSEClient(tokens=self, **options)
        except (ImportError, ValueError) as failure:
            raise Failure(str(failure)) from None

    def load(self) -> Optional[Tokens]:
        saved = _read()
        if saved is None or saved["url"] != self.url:
            return None
        return Tokens(saved["access_token"], saved["refresh_token"])

    def save(self, tokens: Optional[Tokens]) -> None:
        try:
            if tokens is None:
                path().unlink(missing_ok=True)
                return
            saved = {
                "url": self.url,
                "ca_file": self.ca_file,
                "access_token": tokens.access,
                "refresh_token": tokens.refresh,
            }
            _write(json.dumps(saved))
        except OSError as failure:
            verb = "delete" if tokens is None else "save"
            raise Failure(f"cannot {verb} the login in {path()}: {failure.strerror}") from None


def add_credential_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of a command that accepts an API key, for `credential`."""
    command.add_argument("--grpc", action="store_true", help="use gRPC instead of REST")
    command.add_argument("--url", help=f"URL of the service, with an API key; default: {DEFAULT_SERVICE}")
    command.add_argument("--ca-file", help="PEM file with the CA certificates to trust, with an API key")


def credential(options: argparse.Namespace) -> tuple[SavedLogin, str]:
    """The service, and the API key; an empty one stands for the saved login."""
    api_key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if api_key:
        return SavedLogin.of_options(options.url, options.ca_file), api_key
    if options.url is not None or options.ca_file is not None:
        raise Failure(f"--url and --ca-file require an API key in {API_KEY_VARIABLE}: 'muse login' saves the URL")
    return SavedLogin.read(), api_key


@contextmanager
def argument_errors() -> Iterator[None]:
    """Converts the errors of arguments that the client does not send."""
    try:
        yield
    except ValueError as failure:
        raise Failure(str(failure)) from None


def _read() -> Optional[dict[str, Any]]:
    try:
        saved: dict[str, Any] = json.loads(path().read_text(encoding="utf-8"))
        return {name: saved[name] for name in ("url", "ca_file", "access_token", "refresh_token")}
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise Failure(f"cannot read the login in {path()}: {failure.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise Failure(f"{path()} is damaged: remove it and run 'muse login'") from None


def _write(text: str) -> None:
    folder = path().parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp creates a file that only the owner can read; the rename is atomic.
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".login-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path())
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
