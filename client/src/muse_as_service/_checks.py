"""Checks the arguments of the clients before they are sent. The service checks the rest."""

from __future__ import annotations

import operator
import re
from datetime import date, datetime
from typing import Any, Optional, get_args

from ._calls import Quota, QuotaPeriod, UsageGrouping

MAX_CONCURRENCY = 64
EXPIRES_IN = "expires_in is a number of seconds, such as 90 * 86_400 for 90 days"


def checked_key(api_key: Optional[str]) -> Optional[str]:
    """The key without white space around it; None if it is empty. The error does not quote it."""
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("the API key contains characters that no key has: was it copied completely?")
    # An access token has three parts.
    if key and not key.startswith("muse_") and key.count(".") != 2:
        raise ValueError("that is not an API key, which begins with muse_: was it copied completely?")
    return key or None


def check_key_id(id: str) -> None:
    """Raises `ValueError` for what is no id, such as a key, which must not be sent in a URL. The error does not quote
    it."""
    if re.fullmatch("[a-z2-7]{12}", id) is None:
        raise ValueError("that is no id of an API key: it is the 12 characters between muse_ and the secret")


def check_text(text: Optional[str], what: str) -> None:
    """Raises `ValueError` for text that cannot be encoded, such as bytes of the command line that are not UTF-8."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid text") from None


def check_key_properties(name: Optional[str], expires_in: Optional[int], quota: Optional[Quota]) -> None:
    """Raises `TypeError` or `ValueError`."""
    check_text(name, "the name of the API key")
    if expires_in is not None and not 0 <= _integer(expires_in, EXPIRES_IN) < 1 << 63:
        raise ValueError(f"{EXPIRES_IN}, at most ten years; 0 is for never")
    if quota is None:
        return
    if not isinstance(quota, Quota):
        raise TypeError("quota must be a muse_as_service.Quota; NO_QUOTA removes one")
    if not 0 <= _integer(quota.tokens, "the tokens of a quota are a number") < 1 << 63:
        raise ValueError("the tokens of a quota are a positive number; NO_QUOTA removes a quota")
    if quota.period not in get_args(QuotaPeriod):
        raise ValueError(f"the period of a quota is day or month, not {quota.period!r}")


def check_usage_query(
    from_: Optional[date], to: Optional[date], by: Optional[str], user: Optional[str], key_id: Optional[str]
) -> None:
    """Raises `TypeError` or `ValueError`."""
    for name, day in ("from_", from_), ("to", to):
        # A datetime is a date, too, but of a time zone.
        if day is not None and (not isinstance(day, date) or isinstance(day, datetime)):
            raise TypeError(f"{name} must be a datetime.date, not {type(day).__name__}")
    if by is not None and by not in get_args(UsageGrouping):
        raise ValueError(f"by is day, user, key or hour, not {by!r}")
    check_text(user, "the name of the user")
    if key_id is not None:
        check_key_id(key_id)


def checked_concurrency(concurrency: int) -> int:
    expected = f"concurrency is between 1 and {MAX_CONCURRENCY}"
    if not 1 <= _integer(concurrency, expected) <= MAX_CONCURRENCY:
        raise ValueError(f"{expected}, not {concurrency}")
    return concurrency


def _integer(value: Any, expected: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{expected}, not {value!r}") from None
