"""API keys in the blocking and the asyncio client, over both protocols."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone

import pytest
from relay import CannedResponse, Relay

from muse_as_service import (
    ApiKey,
    AsyncMUSEClient,
    AuthenticationError,
    InvalidArgumentError,
    MUSEClient,
    MUSEError,
    UnavailableError,
    _grpc,
    _rest,
)

NO_KEY = "aaaaaaaaaaaa"


def test_created_key_works_until_it_is_deleted(client: MUSEClient, url: str) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=5)
    created = client.create_key("ci", expires_in=3600, bulk=True)
    assert created.key.startswith(f"muse_{created.id}_") and created.key not in repr(created)
    assert (created.name, created.owner, created.created_by) == ("ci", "admin", "admin")
    assert (created.bulk, created.disabled, created.last_used_day, created.last_used_from) == (True, False, None, None)
    assert before < created.created_at < before + timedelta(minutes=5)
    assert created.expires_at == created.created_at + timedelta(hours=1)
    with MUSEClient(url=url, api_key=created.key) as program:
        assert len(program.embed(["a"])) == 1
        described = program.describe_key()
        assert type(described) is ApiKey and described == client.get_key(created.id)
        client.delete_key(created.id)
        time.sleep(0.3)
        with pytest.raises(AuthenticationError, match="revoked"):
            program.embed(["a"])
    assert created.id not in [key.id for key in client.list_keys()]


def test_update_changes_only_the_given_properties(client: MUSEClient) -> None:
    created = client.create_key("a")
    assert (created.expires_at, created.bulk) == (None, False)
    assert client.update_key(created.id, name="b").name == "b"
    assert client.update_key(created.id, disabled=True, bulk=True).expires_at is None
    changed = client.update_key(created.id, expires_in=60)
    assert (changed.name, changed.disabled, changed.bulk) == ("b", True, True)
    assert changed.expires_at is not None and changed.expires_at > created.created_at
    changed = client.update_key(created.id, disabled=False, expires_in=0, bulk=False)
    assert (changed.name, changed.disabled, changed.bulk, changed.expires_at) == ("b", False, False, None)
    client.delete_key(created.id)


def test_list_has_all_pages_in_order_of_creation(client: MUSEClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for protocol in _rest, _grpc:
        monkeypatch.setattr(protocol, "KEYS_PER_PAGE", 2)
    created = sorted(client.create_key(f"key {number}").id for number in range(5))
    for listed in client.list_keys(), client.list_keys(user="admin"), client.list_keys(all_users=True):
        assert sorted(key.id for key in listed if key.id in created) == created
        # Those of the same second are in any order.
        assert [key.created_at for key in listed] == sorted(key.created_at for key in listed)
    for id in created:
        client.delete_key(id)


def test_rejected_key_calls_raise_errors_with_reasons(client: MUSEClient) -> None:
    for call in client.get_key, client.delete_key, lambda id: client.update_key(id, name="a"):
        with pytest.raises(MUSEError) as missing:
            call(NO_KEY)
        assert (missing.value.status, missing.value.reason) == (404, "NO_SUCH_KEY")
    for name, expires_in in ("", 0), ("a\n", 0), ("a" * 101, 0), ("a", 10**10):
        with pytest.raises(InvalidArgumentError, match="name" if expires_in == 0 else "expires_in"):
            client.create_key(name, expires_in=expires_in)
    with pytest.raises(AuthenticationError) as token:
        client.describe_key()
    assert token.value.reason == "TOKEN_KIND"
    # Not sent: the URL of a request may be logged.
    secret = "muse_aaaaaaaaaaaa_secret"
    for id in secret, "", "a/b", "AAAAAAAAAAAA":
        with pytest.raises(ValueError, match="12 characters") as invalid:
            client.get_key(id)
        assert "secret" not in str(invalid.value).replace("the secret", "")
    for expires_in in -1, 1 << 63:
        with pytest.raises(ValueError, match="in seconds"):
            client.create_key("a", expires_in=expires_in)
    with pytest.raises(ValueError, match="not valid text"):
        client.create_key("\ud800")


@pytest.mark.parametrize("grpc", [False, True])
def test_api_key_cannot_manage_keys(url: str, api_key: str, grpc: bool) -> None:
    with MUSEClient(url=url, grpc=grpc, api_key=api_key) as program:
        for call in program.list_keys, lambda: program.create_key("a"), lambda: program.delete_key(NO_KEY):
            with pytest.raises(MUSEError, match="access token") as rejected:
                call()
            assert (rejected.value.status, rejected.value.reason) == (403, "PERMISSION_DENIED")


def test_lost_response_does_not_create_a_second_key(relay: Relay) -> None:
    with MUSEClient(url=relay.url) as client:
        client.login("admin", "admin")
        relay.responses = [CannedResponse(None)]
        with pytest.raises(UnavailableError):
            client.create_key("lost")
        assert "lost" not in [key.name for key in client.list_keys()]


@pytest.mark.parametrize("grpc", [False, True])
def test_asyncio_client_manages_keys(url: str, grpc: bool) -> None:
    async def run() -> None:
        async with AsyncMUSEClient(url=url, grpc=grpc) as client:
            await client.login("admin", "admin")
            created = await client.create_key("asyncio", bulk=True)
            assert (await client.get_key(created.id)).bulk
            assert not (await client.update_key(created.id, bulk=False)).bulk
            async with AsyncMUSEClient(url=url, grpc=grpc, api_key=created.key) as program:
                assert (await program.describe_key()).id == created.id
            assert created.id in [key.id for key in await client.list_keys()]
            await client.delete_key(created.id)

    asyncio.run(run())
