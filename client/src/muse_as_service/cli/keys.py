"""`muse key`: manages API keys."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Any, Optional

from .. import NO_QUOTA, ApiKey, MUSEClient, Quota
from .._transfer import API_KEY_VARIABLE
from . import Failure
from .login import DEFAULT_SERVICE, SavedLogin, argument_errors
from .text import print_columns, printable, time_text

DESCRIPTION = """\
Creates, lists, changes and deletes the API keys of the user of 'muse login'. 'muse key describe' describes the key in
the environment variable MUSE_API_KEY instead."""
LIST_COLUMNS = """\
A line per key, with columns separated by tabs: id, owner, creation, expiry, day and network of the last use, quota,
name, and 'disabled' and 'bulk' if so. '-' stands for no value."""
DURATION = "such as 90d, 12h, 30m or 3600 (seconds)"
QUOTA = "such as 1000000/day or 20000000/month (UTC)"
UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def add_commands(commands: Any) -> None:
    """Adds `key` to the subcommands of `muse`."""
    key = commands.add_parser("key", help="manage API keys", description=DESCRIPTION)
    keys = key.add_subparsers(required=True, metavar="COMMAND")

    create = keys.add_parser("create", help="create a key and print it, once", description=(
        "Creates an API key and prints it. It cannot be printed again: only its SHA-256 is stored."
    ))  # fmt: skip
    create.add_argument("name", metavar="NAME", help="a name for people")
    create.add_argument("--expires-in", type=_duration, default=0, metavar="TIME", help=f"{DURATION}; default: never")
    create.add_argument("--bulk", action="store_true", help="the key is for bulk jobs, which do not slow other calls")
    create.add_argument("--quota", type=_quota, help=f"limit on its tokens, {QUOTA}; default: none")
    create.add_argument("--user", help="owner of the key instead of the caller; for admins")
    _set_run(create, _create)

    listing = keys.add_parser("list", help="list keys", description=LIST_COLUMNS)
    whose = listing.add_mutually_exclusive_group()
    whose.add_argument("--user", help="owner of the keys instead of the caller; for admins")
    whose.add_argument("--all", action="store_true", help="list the keys of all users; for admins")
    _set_run(listing, _list)

    show = keys.add_parser("show", help="describe a key")
    _add_id(show)
    _set_run(show, _show)

    update = keys.add_parser("update", help="rename, disable, enable or otherwise change a key")
    _add_id(update)
    update.add_argument("--name", help="new name")
    update.add_argument(
        "--expires-in", type=_duration_or_never, metavar="TIME", help=f"time from now, {DURATION}, or never"
    )
    state = update.add_mutually_exclusive_group()
    state.add_argument("--disable", dest="disabled", action="store_true", default=None, help="reject the key")
    state.add_argument("--enable", dest="disabled", action="store_false", default=None, help="accept the key again")
    update.add_argument("--bulk", action=argparse.BooleanOptionalAction, help="whether the key is for bulk jobs")
    limit = update.add_mutually_exclusive_group()
    limit.add_argument("--quota", type=_quota, help=f"limit on its tokens, {QUOTA}")
    limit.add_argument("--no-quota", dest="quota", action="store_const", const=NO_QUOTA, help="remove the limit")
    _set_run(update, _update)

    delete = keys.add_parser("delete", help="delete a key, which is rejected from then on")
    _add_id(delete)
    _set_run(delete, _delete)

    describe = keys.add_parser("describe", help="describe the key in MUSE_API_KEY")
    describe.add_argument("--url", help=f"URL of the service; default: {DEFAULT_SERVICE}")
    describe.add_argument("--ca-file", help="PEM file with the CA certificates to trust instead of the system's")
    _set_run(describe, _describe)


def _add_id(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", metavar="ID", help="id of the key, the 12 characters after muse_")


def _set_run(command: argparse.ArgumentParser, run: Any) -> None:
    command.add_argument("--grpc", action="store_true", help="use gRPC instead of REST")
    command.set_defaults(run=run)


def _duration(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([smhd]?)", text)
    seconds = int(found[1]) * UNIT_SECONDS[found[2]] if found else 0
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time {DURATION}")
    return seconds


def _duration_or_never(text: str) -> int:
    return 0 if text == "never" else _duration(text)


def _quota(text: str) -> Quota:
    found = re.fullmatch("([0-9]{1,18})/(day|month)", text)
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no quota {QUOTA}")
    return Quota(int(found[1]), "day" if found[2] == "day" else "month")


def _quota_text(quota: Optional[Quota]) -> str:
    """The quota in the form of `--quota`; empty for None."""
    return f"{quota.tokens}/{quota.period}" if quota else ""


def _client(options: argparse.Namespace) -> MUSEClient:
    """A client with the saved login: an API key cannot manage keys."""
    return SavedLogin.read().client(grpc=options.grpc, api_key="")


def _create(options: argparse.Namespace) -> None:
    with _client(options) as client, argument_errors():
        created = client.create_key(
            options.name,
            expires_in=options.expires_in,
            bulk=options.bulk,
            user=options.user,
            quota=options.quota,
        )
    try:
        print(created.key, flush=True)
    except OSError as failure:
        # Python would report the error again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        text = f"cannot write the key to standard output: {failure.strerror}"
        raise Failure(f"{text}; nobody has it now: remove it with 'muse key delete {created.id}'") from None
    expiry = f"expires on {time_text(created.expires_at)}" if created.expires_at else "does not expire"
    print(
        f"muse: created the API key {created.id} ({printable(created.name)}), which {expiry}; "
        "it cannot be printed again",
        file=sys.stderr,
    )


def _list(options: argparse.Namespace) -> None:
    with _client(options) as client, argument_errors():
        keys = client.list_keys(user=options.user, all_users=options.all)
    for key in keys:
        used = (str(key.last_used_day), key.last_used_from or "-") if key.last_used_day else ("-", "-")
        flags = [name for name in ("disabled", "bulk") if getattr(key, name)]
        times = time_text(key.created_at), time_text(key.expires_at) or "-"
        print_columns(key.id, key.owner, *times, *used, _quota_text(key.quota) or "-", key.name, *flags)


def _show(options: argparse.Namespace) -> None:
    with _client(options) as client, argument_errors():
        _print(client.get_key(options.id))


def _update(options: argparse.Namespace) -> None:
    change = {name: getattr(options, name) for name in ("name", "disabled", "expires_in", "bulk", "quota")}
    if all(value is None for value in change.values()):
        raise Failure(
            "nothing to change: use --name, --expires-in, --disable, --enable, --bulk, --no-bulk, --quota or --no-quota"
        )
    with _client(options) as client, argument_errors():
        _print(client.update_key(options.id, **change))


def _delete(options: argparse.Namespace) -> None:
    with _client(options) as client, argument_errors():
        client.delete_key(options.id)
    print(f"deleted the API key {options.id}")


def _describe(options: argparse.Namespace) -> None:
    api_key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not api_key:
        raise Failure(f"no API key: set the environment variable {API_KEY_VARIABLE}")
    login = SavedLogin.of_options(options.url, options.ca_file)
    with login.client(grpc=options.grpc, api_key=api_key) as client:
        _print(client.describe_key())


def _print(key: ApiKey) -> None:
    used = f"{key.last_used_day} from {key.last_used_from}" if key.last_used_day else "never"
    lines = {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "created": f"{time_text(key.created_at)} by {key.created_by or 'the operator'}",
        "expires": time_text(key.expires_at) or "never",
        "disabled": "yes" if key.disabled else "no",
        "bulk": "yes" if key.bulk else "no",
        "quota": _quota_text(key.quota) or "none",
        "last used": used,
    }
    for name, value in lines.items():
        print(f"{name:10} {printable(value)}")
