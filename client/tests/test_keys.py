"""API keys in the blocking and the asyncio client, over both protocols."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone

import pytest
from relay import CannedResponse, Relay

from muse_as_service import (
    NO_QUOTA,
    ApiKey,
    AsyncMUSEClient,
    AuthenticationError,
    InvalidArgumentError,
    MUSEClient,
    MUSEError,
    OverloadedError,
    Quota,
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


def test_quota_is_set_changed_and_removed(client: MUSEClient) -> None:
    created = client.create_key("a", quota=Quota(5_000, "month"))
    assert created.quota == client.get_key(created.id).quota == Quota(5_000, "month")
    assert client.update_key(created.id, name="b").quota == Quota(5_000, "month")
    changed = client.update_key(created.id, quota=Quota(10**15, "day"))
    assert (changed.name, changed.quota) == ("b", Quota(10**15, "day"))
    assert created.id in [key.id for key in client.list_keys() if key.quota == Quota(10**15, "day")]
    assert client.update_key(created.id, quota=NO_QUOTA).quota is None
    assert client.get_key(created.id).quota is None
    client.delete_key(created.id)
    unlimited = client.create_key("a", quota=NO_QUOTA)
    assert unlimited.quota is None and unlimited.id in [key.id for key in client.list_keys() if key.quota is None]
    client.delete_key(unlimited.id)


def test_invalid_quotas_are_rejected(client: MUSEClient) -> None:
    with pytest.raises(InvalidArgumentError, match="quota: it is at most 1000000000000000 tokens"):
        client.create_key("a", quota=Quota(10**15 + 1, "day"))
    for quota, text in (
        (Quota(-1, "day"), "a positive number"),
        (Quota(1 << 63, "day"), "a positive number"),
        (Quota(5, "week"), "day or month, not 'week'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=text):
            client.create_key("a", quota=quota)
        with pytest.raises(ValueError, match=text):
            client.update_key(NO_KEY, quota=quota)
    for wrong in 5, "5/day", Quota(1.5, "day"):  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            client.create_key("a", quota=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("grpc", [False, True])
def test_exhausted_quota_of_a_key_raises_at_once(client: MUSEClient, url: str, grpc: bool) -> None:
    created = client.create_key("limited", quota=Quota(1, "day"))
    with MUSEClient(url=url, grpc=grpc, api_key=created.key) as program:
        deadline = time.monotonic() + 30
        with pytest.raises(OverloadedError, match="quota") as exhausted:
            while time.monotonic() < deadline:
                start = time.monotonic()
                program.embed(["a b c"])
                time.sleep(0.1)
        assert time.monotonic() - start < 5
        assert (exhausted.value.status, exhausted.value.reason) == (429, "QUOTA_EXHAUSTED")
        assert exhausted.value.retry_after is not None and 0 < exhausted.value.retry_after <= 86_400
        # Tokenizing is not limited, and the owner can change the quota.
        assert program.tokenize(["a"]) == [["▁a"]]
        client.update_key(created.id, quota=NO_QUOTA)
        while True:
            try:
                assert len(program.embed(["a"])) == 1
                break
            except OverloadedError:
                assert time.monotonic() < deadline + 30
                time.sleep(0.2)
    client.delete_key(created.id)


def test_list_has_all_pages_in_order_of_creation(client: MUSEClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for protocol in _rest, _grpc:
        monkeypatch.setattr(protocol, "PAGE_SIZE", 2)
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
        with pytest.raises(ValueError, match="a number of seconds"):
            client.create_key("a", expires_in=expires_in)
    with pytest.raises(TypeError, match="a number of seconds, such as 90 \\* 86_400 for 90 days, not '90d'"):
        client.create_key("a", expires_in="90d")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the tokens of a quota are a number, not '1e6'"):
        client.create_key("a", quota=Quota("1e6", "day"))  # type: ignore[arg-type]
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
        for lost in (CannedResponse(None), CannedResponse(503, {}, "{}"), CannedResponse(504, {}, "{}")):
            relay.responses = [lost]
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
