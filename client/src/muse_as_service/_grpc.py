"""The gRPC protocol, for both clients: the stubs of grpc and of grpc.aio have the same methods."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any, Optional

import numpy as np

from ._calls import (
    MODEL_LIMITS,
    ApiKey,
    Call,
    CreatedKey,
    CreateKey,
    DeleteKey,
    DescribeKey,
    Embed,
    GetKey,
    GetModel,
    ListKeys,
    ListUsage,
    Login,
    Model,
    ModelResult,
    Page,
    Quota,
    Refresh,
    Revoke,
    Tokenize,
    Tokens,
    UpdateKey,
    UsageGrouping,
    UsageRow,
    Vectors,
    given_changes,
    key_fields,
)
from ._fingerprint import HEADER, fingerprint_of
from ._grpc_channel import ChannelConnector
from .errors import (
    AuthenticationError,
    FingerprintMismatchError,
    InvalidArgumentError,
    MUSEError,
    OverloadedError,
    TooLargeError,
    UnavailableError,
)

try:
    import grpc
    from google.rpc import error_details_pb2, status_pb2

    from .v1 import (
        auth_pb2,
        auth_pb2_grpc,
        embedder_pb2,
        embedder_pb2_grpc,
        key_pb2,
        key_pb2_grpc,
        usage_pb2,
        usage_pb2_grpc,
    )
except ImportError as missing:
    raise ImportError(f"grpc=True needs more packages ({missing}): pip install 'muse-as-service[grpc]'") from None

PAGE_SIZE = 1_000
Code = grpc.StatusCode
RpcError = grpc.RpcError
HTTP_STATUS = {
    Code.INVALID_ARGUMENT: 400,
    # tonic's status for a message that is too large; it has no error details.
    Code.OUT_OF_RANGE: 413,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.FAILED_PRECONDITION: 409,
    Code.UNIMPLEMENTED: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
REASON_OF_CODE = {Code.OUT_OF_RANGE: "TOO_LARGE", Code.RESOURCE_EXHAUSTED: "OVERLOADED"}
HTTP_STATUS_OF_REASON = {
    "TOO_LARGE": 413,
    "TOKEN_MALFORMED": 422,
    "TOKEN_INVALID": 422,
    "TOKEN_KIND": 422,
    "FINGERPRINT_MISMATCH": 412,
}


class GrpcProtocol:
    """The gRPC protocol of one server, over a channel of grpc or grpc.aio."""

    failure = RpcError
    """The exception of a failed call."""

    def __init__(self, channel: Any, connector: ChannelConnector, timeout: Optional[float]) -> None:
        self._auth = auth_pb2_grpc.AuthServiceStub(channel)
        self._embedder = embedder_pb2_grpc.EmbedderServiceStub(channel)
        self._keys = key_pb2_grpc.KeyServiceStub(channel)
        self._usage = usage_pb2_grpc.UsageServiceStub(channel)
        self._connector = connector
        self._timeout = timeout

    def request(self, call: Call[Any]) -> tuple[Any, Any]:
        """Returns the stub of the method of a call, and the message of the request."""
        if isinstance(call, Login):
            return self._auth.Login, auth_pb2.LoginRequest(username=call.username, password=call.password)
        if isinstance(call, Refresh):
            return self._auth.RefreshToken, auth_pb2.RefreshTokenRequest()
        if isinstance(call, Revoke):
            return self._auth.RevokeToken, auth_pb2.RevokeTokenRequest()
        if isinstance(call, Tokenize):
            return self._embedder.Tokenize, embedder_pb2.TokenizeRequest(sentences=call.sentences)
        if isinstance(call, Embed):
            return self._embedder.Embed, embedder_pb2.EmbedRequest(
                sentences=call.sentences, format=embedder_pb2.VECTOR_FORMAT_FLOAT16 if call.float16 else None
            )
        if isinstance(call, GetModel):
            return self._embedder.GetModel, embedder_pb2.GetModelRequest()
        if isinstance(call, ListUsage):
            return self._usage.ListUsage, _usage_request(call)
        return self._key_request(call)

    def _key_request(self, call: Call[Any]) -> tuple[Any, Any]:
        if isinstance(call, CreateKey):
            return self._keys.CreateKey, key_pb2.CreateKeyRequest(
                name=call.name,
                expires_in=call.expires_in,
                bulk=call.bulk,
                username=call.user,
                quota=_quota_message(call.quota),
            )
        if isinstance(call, ListKeys):
            return self._keys.ListKeys, key_pb2.ListKeysRequest(
                page_size=PAGE_SIZE, page_token=call.after, username=call.user, all_users=call.all_users
            )
        if isinstance(call, GetKey):
            return self._keys.GetKey, key_pb2.GetKeyRequest(id=call.id)
        if isinstance(call, UpdateKey):
            quota = _quota_message(call.quota)
            return self._keys.UpdateKey, key_pb2.UpdateKeyRequest(id=call.id, quota=quota, **given_changes(call))
        if isinstance(call, DeleteKey):
            return self._keys.DeleteKey, key_pb2.DeleteKeyRequest(id=call.id)
        if isinstance(call, DescribeKey):
            return self._keys.DescribeKey, key_pb2.DescribeKeyRequest()
        raise TypeError(f"no such call: {call!r}")

    def options(self, call: Call[Any]) -> dict[str, Any]:
        """Returns the options of a call: its metadata and its timeout."""
        metadata = []
        token = getattr(call, "token", None)
        if token is not None:
            metadata.append(("authorization", f"Bearer {token}"))
        if call.fingerprint is not None:
            metadata.append((HEADER, call.fingerprint))
        return {"metadata": metadata, "timeout": self._timeout}

    def parse(self, call: Call[Any], response: Any, metadata: Any) -> Any:
        """Returns the result of a call. `metadata` is the initial metadata of the response."""
        if isinstance(call, Login):
            return Tokens(response.access_token, response.refresh_token)
        if isinstance(call, Refresh):
            return Tokens(response.access_token, response.refresh_token or call.token)
        if isinstance(call, Tokenize):
            _check_count(len(response.sentences), len(call.sentences))
            tokens = [list(sentence.tokens) for sentence in response.sentences]
            return ModelResult(tokens, fingerprint_of(metadata))
        if isinstance(call, Embed):
            _check_count(len(response.embeddings), len(call.sentences))
            return ModelResult(_vectors(response.embeddings), fingerprint_of(metadata))
        if isinstance(call, GetModel):
            return _model(response, fingerprint_of(metadata))
        if isinstance(call, CreateKey):
            return CreatedKey(**_key_fields(response.key), key=response.secret_key)
        if isinstance(call, ListKeys):
            return Page([ApiKey(**_key_fields(key)) for key in response.keys], response.next_page_token or None)
        if isinstance(call, (GetKey, UpdateKey, DescribeKey)):
            return ApiKey(**_key_fields(response.key))
        if isinstance(call, ListUsage):
            return Page([_usage_row(row, call.by) for row in response.usage], response.next_page_token or None)
        return None

    def error(self, call: Call[Any], failure: RpcError) -> MUSEError:
        """Converts the error of a failed call."""
        code, text = failure.code(), failure.details() or ""
        reason, retry_after, place = _details(failure)
        if code == Code.UNAVAILABLE and not reason:
            unavailable = self._connector.unavailable(text)
            # grpc uses the same status if a connection breaks during a call.
            unavailable.sent = unavailable.reason == "PROXY" or "failed to connect" not in text.lower()
            return unavailable
        if code == Code.DEADLINE_EXCEEDED and not reason:
            text = f"{self._connector.url} does not respond in time: try again, or set a longer timeout"
            return UnavailableError(text, reason="DEADLINE_EXCEEDED")
        error = _service_error(code, text, reason, retry_after, place)
        if isinstance(error, FingerprintMismatchError):
            error.expected, error.found = call.fingerprint, _fingerprint_of_failure(failure)
        error.from_service = True
        return error


def _service_error(code: Any, text: str, reason: str, retry_after: Optional[float], place: str) -> MUSEError:
    """The error that the service has sent."""
    status = HTTP_STATUS_OF_REASON.get(reason, HTTP_STATUS.get(code, 500))
    fields: dict[str, Any] = {"status": status, "reason": reason or REASON_OF_CODE.get(code, code.name)}
    if code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
        return UnavailableError(text, retry_after=retry_after, **fields)
    if code == Code.RESOURCE_EXHAUSTED:
        return OverloadedError(text, retry_after=retry_after, **fields)
    if code == Code.UNAUTHENTICATED:
        return AuthenticationError(text, **fields)
    if reason == "TOO_LARGE" or code == Code.OUT_OF_RANGE:
        found = re.match(r"sentences\[(\d+)\]", place or text)
        return TooLargeError(text, index=int(found[1]) if found else None, **fields)
    if reason == "FINGERPRINT_MISMATCH":
        return FingerprintMismatchError(text, **fields)
    if code == Code.INVALID_ARGUMENT:
        return InvalidArgumentError(text, **fields)
    return MUSEError(text, **fields)


def _model(model: Any, fingerprint: Optional[str]) -> Model:
    fields: dict[str, Any] = {name: getattr(model, name) for name in ("version", "dimension", "precision", "device")}
    # 0 and "" stand for what an older service does not report.
    fields.update({name: getattr(model, name) or None for name in ("source_sha256", "source_precision", "license")})
    fields.update({name: getattr(model.limits, name) or None for name in MODEL_LIMITS})
    fields["fingerprint"] = model.fingerprint or fingerprint
    return Model(id=model.name, languages=tuple(model.languages), **fields)


def _key_fields(key: Any) -> dict[str, Any]:
    return {
        **key_fields(lambda name: getattr(key, name)),
        "quota": _quota(key.quota) if key.HasField("quota") else None,
    }


def _quota(quota: Any) -> Quota:
    return Quota(quota.tokens, "month" if quota.period == usage_pb2.QUOTA_PERIOD_MONTH else "day")


def _quota_message(quota: Optional[Quota]) -> Optional[usage_pb2.Quota]:
    if quota is None:
        return None
    return usage_pb2.Quota(tokens=quota.tokens, period=f"QUOTA_PERIOD_{quota.period.upper()}")


def _usage_request(call: ListUsage) -> usage_pb2.ListUsageRequest:
    return usage_pb2.ListUsageRequest(
        **{"from": _start_of(call.from_)},
        to=_start_of(call.to),
        grouping=f"USAGE_GROUPING_{call.by.upper()}" if call.by else None,
        username=call.user,
        key_id=call.key_id,
        page_size=PAGE_SIZE,
        page_token=call.after,
    )


def _start_of(day: Optional[date]) -> Optional[int]:
    """The start of a day (UTC), in seconds since 1970."""
    return (day - date(1970, 1, 1)).days * 86_400 if day else None


def _usage_row(row: Any, by: Optional[UsageGrouping]) -> UsageRow:
    start = datetime.fromtimestamp(row.start, timezone.utc)
    return UsageRow(
        day=start.date() if by in (None, "day") else None,
        hour=start if by == "hour" else None,
        user=row.username or None,
        key_id=row.key_id or None,
        requests=row.requests,
        sentences=row.sentences,
        tokens=row.tokens,
        refused=row.refused,
    )


def _check_count(results: int, sentences: int) -> None:
    if results != sentences:
        raise MUSEError(f"the service returns {results} results, where {sentences} are expected")


def _vectors(embeddings: Sequence[Any]) -> Vectors:
    if embeddings[0].encoded:
        # float16. Earlier services ignore the format.
        encoded = b"".join(embedding.encoded for embedding in embeddings)
        return np.frombuffer(encoded, "<f2").reshape(len(embeddings), -1)
    dimension = len(embeddings[0].values)
    vectors: Vectors = np.empty((len(embeddings), dimension), np.float32)
    for row, embedding in zip(vectors, embeddings):
        row[:] = embedding.values
    return vectors


def _fingerprint_of_failure(failure: Any) -> Optional[str]:
    # The metadata of a response without messages may all be trailing ones.
    return fingerprint_of(failure.initial_metadata()) or fingerprint_of(failure.trailing_metadata())


def _details(failure: RpcError) -> tuple[str, Optional[float], str]:
    """Returns reason, retry delay in seconds, and invalid field from the google.rpc details of a failed call."""
    reason, retry_after, place = "", None, ""
    metadata: Any = failure.trailing_metadata()
    for key, value in metadata or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, retry, bad = (
                error_details_pb2.ErrorInfo(),
                error_details_pb2.RetryInfo(),
                error_details_pb2.BadRequest(),
            )
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            elif detail.Unpack(bad) and bad.field_violations:
                place = bad.field_violations[0].field
    return reason, retry_after, place
