"""`muse usage`: prints usage by day, user, API key or hour."""

from __future__ import annotations

import argparse
import re
from datetime import date
from typing import Any, Optional, get_args

from .. import UsageRow
from .._calls import UsageGrouping
from .login import add_credential_options, argument_errors, credential
from .text import print_columns, time_text

DESCRIPTION = """\
Prints usage: a line per group, with columns separated by tabs, below a line with their names: the day or hour (UTC),
user and id of the API key, as far as the grouping has them; then the numbers of requests, of sentences, of their
tokens, and of refused requests. '-' in place of the key stands for calls with a login. Groups without usage are left
out. The usage is that of the API key in the environment variable MUSE_API_KEY, otherwise that of the user of 'muse
login', for admins that of all users."""
NUMBERS = ("requests", "sentences", "tokens", "refused")


def add_commands(commands: Any) -> None:
    """Adds `usage` to the subcommands of `muse`."""
    usage = commands.add_parser("usage", help="print usage by day, user, API key or hour", description=DESCRIPTION)
    usage.add_argument(
        "--from",
        dest="from_",
        type=_day,
        metavar="DAY",
        help="first day (UTC), such as 2026-11-01; default: 29 days before the last one",
    )
    usage.add_argument("--to", type=_day, metavar="DAY", help="last day (UTC), which is included; default: today")
    usage.add_argument(
        "--by",
        choices=get_args(UsageGrouping),
        help="how usage is grouped; default: by day, user and key. Hours are stored for 31 days",
    )
    usage.add_argument("--user", metavar="NAME", help="only the usage of this user")
    usage.add_argument("--key", metavar="ID", help="only the usage of the API key with this id")
    add_credential_options(usage)
    usage.set_defaults(run=_usage)


def _day(text: str) -> date:
    try:
        # fromisoformat also accepts other forms, since Python 3.11.
        if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2026-11-29")


def _usage(options: argparse.Namespace) -> None:
    login, api_key = credential(options)
    with login.client(grpc=options.grpc, api_key=api_key) as client, argument_errors():
        rows = client.usage(options.from_, options.to, options.by, options.user, options.key)
    columns = _columns(options.by)
    print_columns(*columns, *NUMBERS)
    for row in rows:
        print_columns(*(_value(row, column) for column in columns), *(str(getattr(row, name)) for name in NUMBERS))


def _columns(by: Optional[UsageGrouping]) -> tuple[str, ...]:
    """The names of the columns before the numbers."""
    if by is None:
        return "day", "user", "key"
    return ("user", "key") if by == "key" else (by,)


def _value(row: UsageRow, column: str) -> str:
    values = {"day": str(row.day), "hour": time_text(row.hour), "user": row.user or "", "key": row.key_id or "-"}
    return values[column]
