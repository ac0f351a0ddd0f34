"""Usage in the blocking and the asyncio client, over both protocols."""

from __future__ import annotations

import asyncio
import time
from datetime import date, datetime, timedelta, timezone
from typing import Callable

import pytest

from muse_as_service import (
    AsyncMUSEClient,
    CreatedKey,
    InvalidArgumentError,
    MUSEClient,
    MUSEError,
    UsageRow,
    _grpc,
    _rest,
)

NO_KEY = "bbbbbbbbbbbb"


def today() -> date:
    return datetime.now(timezone.utc).date()


def wait_for_requests(list_usage: Callable[[], list[UsageRow]], requests: int) -> list[UsageRow]:
    """The usage, as soon as it contains this many requests: embedders report every two seconds."""
    deadline = time.monotonic() + 30
    while True:
        rows = list_usage()
        if sum(row.requests for row in rows) >= requests:
            return rows
        assert time.monotonic() < deadline, rows
        time.sleep(0.2)


def used_key(client: MUSEClient, url: str) -> CreatedKey:
    """A new key, whose calls have embedded two sentences and tokenized one."""
    created = client.create_key("usage")
    with MUSEClient(url=url, api_key=created.key) as program:
        program.embed(["a", "b"])
        program.tokenize(["a"])
        wait_for_requests(lambda: program.usage(by="key"), 2)
    return created


def test_rows_have_the_fields_of_their_grouping(client: MUSEClient, url: str) -> None:
    begin = today()
    created = used_key(client, url)
    end = today()
    (row,) = client.usage(begin, end, key_id=created.id)
    assert row.day in (begin, end) and type(row.day) is date
    numbers = {"requests": 2, "sentences": 2, "tokens": 2, "refused": 0}
    assert row == UsageRow(day=row.day, hour=None, user="admin", key_id=created.id, **numbers)
    (row,) = client.usage(begin, end, "hour", key_id=created.id)
    assert row.hour is not None and timedelta(0) <= datetime.now(timezone.utc) - row.hour < timedelta(hours=2)
    assert row == UsageRow(day=None, hour=row.hour, user=None, key_id=None, **numbers)
    (row,) = client.usage(by="day", key_id=created.id)
    assert row.day in (begin, end) and row == UsageRow(day=row.day, hour=None, user=None, key_id=None, **numbers)
    (row,) = client.usage(by="user", user="admin", key_id=created.id)
    assert row == UsageRow(day=None, hour=None, user="admin", key_id=None, **numbers)
    (row,) = client.usage(by="key", key_id=created.id)
    assert row == UsageRow(day=None, hour=None, user="admin", key_id=created.id, **numbers)
    # Calls with a login have no key.
    client.embed(["a"])
    rows = wait_for_requests(lambda: [row for row in client.usage(by="key") if row.key_id is None], 1)
    assert [row.user for row in rows] == ["admin"]
    client.delete_key(created.id)


def test_days_limit_the_usage(client: MUSEClient, url: str) -> None:
    begin = today()
    created = used_key(client, url)
    day, end = timedelta(days=1), today()
    for first, last, count in (
        (None, None, 1),
        (None, end, 1),
        (begin, None, 1),
        (date(1970, 1, 1), end, 1),
        (None, begin - day, 0),
        (begin - 9 * day, begin - day, 0),
        (end + day, end + 9 * day, 0),
        (date(1970, 1, 1), date(1970, 1, 1), 0),
    ):
        assert len(client.usage(first, last, "key", key_id=created.id)) == count, (first, last)
    client.delete_key(created.id)


def test_usage_has_all_pages(client: MUSEClient, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    created = [client.create_key(f"key {number}") for number in range(3)]
    for key in created:
        with MUSEClient(url=url, api_key=key.key) as program:
            program.embed(["a"])
    ids = {key.id for key in created}
    wait_for_requests(lambda: [row for row in client.usage(by="key") if row.key_id in ids], 3)
    for protocol in _rest, _grpc:
        monkeypatch.setattr(protocol, "PAGE_SIZE", 1)
    rows = client.usage(by="key")
    assert sorted(row.key_id for row in rows if row.key_id in ids) == sorted(ids)
    assert len({(row.user, row.key_id) for row in rows}) == len(rows)
    for id in ids:
        client.delete_key(id)


@pytest.mark.parametrize("grpc", [False, True])
def test_key_lists_only_its_own_usage(client: MUSEClient, url: str, grpc: bool) -> None:
    client.embed(["a"])
    created = used_key(client, url)
    with MUSEClient(url=url, grpc=grpc, api_key=created.key) as program:
        for rows in program.usage(by="key"), program.usage(by="key", user="admin", key_id=created.id):
            assert [(row.user, row.key_id, row.requests) for row in rows] == [("admin", created.id, 2)]
        for user, key_id in (None, NO_KEY), ("somebody", None):
            with pytest.raises(MUSEError) as rejected:
                program.usage(user=user, key_id=key_id)
            assert (rejected.value.status, rejected.value.reason) == (403, "PERMISSION_DENIED")
    client.delete_key(created.id)


def test_invalid_usage_queries_are_rejected(client: MUSEClient) -> None:
    with pytest.raises(MUSEError) as missing:
        client.usage(user="nobody")
    assert (missing.value.status, missing.value.reason) == (404, "NO_SUCH_USER")
    for first, last in ((date(2026, 2, 1), date(2026, 1, 1)), (date(1, 1, 1), None), (None, date(9999, 1, 1))):
        with pytest.raises(InvalidArgumentError, match=r"from: |to: "):
            client.usage(first, last)
    assert client.usage(key_id=NO_KEY) == []
    # Not sent: the URL of a request may be logged.
    with pytest.raises(ValueError, match="12 characters"):
        client.usage(key_id="muse_aaaaaaaaaaaa_secret")
    with pytest.raises(ValueError, match="by is day, user, key or hour, not 'week'"):
        client.usage(by="week")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not valid text"):
        client.usage(user="\ud800")
    for day in datetime.now(timezone.utc), "2026-11-29", 0:
        with pytest.raises(TypeError, match=r"from_ must be a datetime\.date"):
            client.usage(from_=day)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"to must be a datetime\.date"):
            client.usage(to=day)  # type: ignore[arg-type]


@pytest.mark.parametrize("grpc", [False, True])
def test_asyncio_client_lists_usage(client: MUSEClient, url: str, grpc: bool) -> None:
    created = used_key(client, url)

    async def run() -> None:
        async with AsyncMUSEClient(url=url, grpc=grpc) as asynchronous:
            await asynchronous.login("admin", "admin")
            (row,) = await asynchronous.usage(by="key", key_id=created.id)
            assert (row.user, row.key_id, row.requests, row.sentences) == ("admin", created.id, 2, 2)
        async with AsyncMUSEClient(url=url, grpc=grpc, api_key=created.key) as asynchronous:
            assert [row.key_id for row in await asynchronous.usage()] == [created.id]

    asyncio.run(run())
    client.delete_key(created.id)
