"""`muse doctor`: health checks of a service and of the connection to it."""

from __future__ import annotations

import argparse
import base64
import json
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from importlib.resources import files
from typing import Any, Callable, NamedTuple, Optional, TypeVar

import httpx
import numpy as np

from .. import AuthenticationError, MUSEError, Tokens
from .._address import base_url
from .._calls import Call, Embed, GetModel, Login, ModelResult, Revoke, Tokenize
from .._http import HttpConnector
from .._rest import RestProtocol, error_of
from .._tokens import access_claims
from . import Failure
from .authentication import add_service_options, user_and_password
from .fingerprint import fingerprint
from .login import DEFAULT_SERVICE, SavedLogin, argument_errors
from .text import time_text

VERDICTS = {True: "ok", False: "FAILED", None: "skipped"}
TIMEOUT_S = 30.0
MAX_CLOCK_SKEW_S = 5.0
# Tolerance of the services (docs/api/limits.md, "Clock skew").
TOLERATED_SKEW_S = 60
REVOKED_WITHIN_S = 5.0
# Other precisions of the same model exceed this, an unrelated model does not.
MIN_COSINE = 0.97

T = TypeVar("T")


class Golden(NamedTuple):
    """Reference tokens and vectors of one sentence in each language."""

    texts: list[str]
    tokens: list[list[str]]
    vectors: np.ndarray[Any, np.dtype[np.float32]]

    @classmethod
    def read(cls) -> Golden:
        lines = json.loads(files(__package__).joinpath("golden.json").read_text(encoding="utf-8"))
        vectors = [np.frombuffer(base64.b64decode(line["vector"]), "<f4") for line in lines]
        return cls([line["text"] for line in lines], [line["tokens"] for line in lines], np.array(vectors))


class Finding(NamedTuple):
    """The result of a check; `passed` is None if it was skipped."""

    check: str
    passed: Optional[bool]
    text: str


def add_commands(commands: Any) -> None:
    """Adds `doctor` to the subcommands of `muse`."""
    check = commands.add_parser("doctor", help="check a service")
    user = "user name; without it, checks that need a login are skipped"
    add_service_options(check, user, DEFAULT_SERVICE)
    check.add_argument(
        "--fingerprint",
        type=fingerprint,
        metavar="ID",
        help="the fingerprint that the model must have, such as that of an index, as 'muse info' prints it",
    )
    check.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    service = SavedLogin.of_options(options.url, options.ca_file)
    with argument_errors():
        url = base_url("", 0, service.url)
    user = None if options.user is None else user_and_password(options.user)
    failed = 0
    for check, passed, text in examine(url, service.ca_file, user, options.fingerprint):
        print(f"{VERDICTS[passed]:7} {check:8} {text}", flush=True)
        failed += passed is False
    if failed:
        raise Failure(f"{failed} of the checks failed")


def examine(
    url: str, ca_file: Optional[str], user: Optional[tuple[str, str]], fingerprint: Optional[str] = None
) -> Iterator[Finding]:
    """Runs the checks in order. Most need `user`, a name and password. `fingerprint` is the one that the model must
    have; None for any."""
    service = _Service(url, ca_file, fingerprint)
    missing = None if user else "requires --user NAME"
    with service.http:
        try:
            yield Finding("service", True, service.answers())
        except (Failure, MUSEError) as failure:
            yield Finding("service", False, str(failure))
            return
        yield _run_check("clock", service.clock)
        yield _run_check("keys", service.keys)
        if user is not None:
            logged_in = _run_check("log-in", lambda: service.log_in(*user))
            yield logged_in
            missing = None if logged_in.passed else "requires a login"
        else:
            yield Finding("log-in", None, str(missing))
        for check, run in (
            ("auth-clock", service.auth_clock),
            ("model", service.model),
            ("embedders", service.embedders),
            ("tokens", service.tokens_are_exact),
            ("vectors", service.vectors_are_near),
            ("log-out", service.log_out),
        ):
            yield _run_check(check, run) if missing is None else Finding(check, None, missing)


def _run_check(check: str, run: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, run())
    except (Failure, MUSEError) as failure:
        return Finding(check, False, str(failure))
    except UnicodeEncodeError:
        return Finding(check, False, "the name or the password is not valid text")
    except (ValueError, KeyError, TypeError, IndexError) as failure:
        return Finding(check, False, f"the response is not one of MUSE as Service ({failure!r})")


class _Service:
    def __init__(self, url: str, ca_file: Optional[str], required: Optional[str]) -> None:
        self.url = url
        self._required = required
        self._fingerprint: Optional[str] = None
        self._connector = HttpConnector(url, ca_file, TIMEOUT_S)
        self.http = self._connector.open()
        self._protocol = RestProtocol(self._connector.visible_proxy)
        self._golden = Golden.read()
        self._login: Tokens
        self._login_interval: tuple[float, float]
        self._key_set: httpx.Response

    def answers(self) -> str:
        self._key_set, milliseconds = _timed(lambda: self._get(".well-known/jwks.json"))
        way = "" if self._connector.proxy is None else f" through {self._connector.proxy}"
        return f"{self.url} responds within {milliseconds:.0f} ms{way}"

    def clock(self) -> str:
        now = datetime.now(timezone.utc)
        date = self._key_set.headers.get("date")
        if date is None:
            raise Failure("the response has no Date header")
        return _compare_clock("gateway", parsedate_to_datetime(date).timestamp() - now.timestamp())

    def auth_clock(self) -> str:
        # The auth service writes its time into each token, in whole seconds, between the request and the response.
        issued_at = access_claims(self._login)["iat"]
        start, end = self._login_interval
        return _compare_clock("auth service", issued_at - (start + end) / 2)

    def keys(self) -> str:
        keys = [key["kid"] for key in self._key_set.json()["keys"]]
        if not keys:
            raise Failure("the service publishes no key to verify tokens with")
        return f"tokens are verified with {', '.join(keys)}"

    def log_in(self, user: str, password: str) -> str:
        start = time.time()
        self._login, milliseconds = _timed(lambda: self._call(Login(user, password)))
        self._login_interval = start, time.time()
        return f"{user} logged in within {milliseconds:.0f} ms: the auth service and its database work"

    def model(self) -> str:
        model = self._call(GetModel(self._login.access))
        self._fingerprint = model.fingerprint
        fingerprint = "no fingerprint" if model.fingerprint is None else f"fingerprint {model.fingerprint}"
        text = f"{model.id} {model.version}, {model.precision} on {model.device}, {fingerprint}"
        if self._required is not None and model.fingerprint != self._required:
            raise Failure(f"{text}, where {self._required} is required: do not compare vectors of the two")
        return text

    def embedders(self) -> str:
        """Whether all embedders have one model. A gateway uses those of one fingerprint only."""
        try:
            status = self._get("api/status", self._login.access).json()
        except MUSEError as error:
            if error.status == 404:
                return "the service is of a release that does not report them"
            raise
        if status["model"] is None:
            raise Failure(f"no embedder describes the model: {status['problem']}")
        unused = [embedder for embedder in status["embedders"] if not embedder.get("used", True)]
        if unused:
            listed = ", ".join(_embedder_text(embedder) for embedder in unused)
            raise Failure(
                f"{len(unused)} of {len(status['embedders'])} embedders get no calls, because their model is not that "
                f"with the fingerprint {status['model']['fingerprint']}: {listed}"
            )
        return f"{status['embedders_serving']} of {status['embedders_known']} embedders serve, with one model"

    def tokens_are_exact(self) -> str:
        actual = self._results(Tokenize(self._login.access, self._golden.texts))
        wrong = [text for text, got, want in zip(self._golden.texts, actual, self._golden.tokens) if got != want]
        if wrong:
            raise Failure(f"{len(wrong)} of {len(actual)} golden sentences have other tokens, such as {wrong[0]!r}")
        return f"the tokens of {len(actual)} golden sentences are exact"

    def vectors_are_near(self) -> str:
        found = self._results(Embed(self._login.access, self._golden.texts))
        if found.shape != self._golden.vectors.shape:
            raise Failure(f"the vectors have {found.shape[1]} components instead of {self._golden.vectors.shape[1]}")
        # Both are unit vectors.
        worst = float(np.min(np.sum(found * self._golden.vectors, axis=1)))
        if not worst >= MIN_COSINE:
            raise Failure(f"the cosine to a golden vector is {worst:.4f}: this is another model")
        return f"the lowest cosine to a golden vector is {worst:.7f}"

    def log_out(self) -> str:
        for call in Revoke(self._login.refresh, "refresh"), Revoke(self._login.access, "access"):
            self._call(call)
        revoked = time.monotonic()
        while (elapsed := time.monotonic() - revoked) < REVOKED_WITHIN_S:
            try:
                self._call(Tokenize(self._login.access, self._golden.texts[:1]))
            except AuthenticationError:
                return f"the token is rejected after {1e3 * elapsed:.0f} ms"
            time.sleep(0.01)
        raise Failure(f"the token is still accepted after {REVOKED_WITHIN_S:.0f} s")

    def _results(self, call: Call[ModelResult[T]]) -> T:
        result = self._call(call)
        if None not in (result.fingerprint, self._fingerprint) and result.fingerprint != self._fingerprint:
            text = f"the response is of a model with the fingerprint {result.fingerprint}"
            raise Failure(f"{text}, not of that of the check 'model': gateways or embedders have different models")
        return result.value

    def _call(self, call: Call[T]) -> T:
        return self._protocol.parse(call, self._send(**self._protocol.request(call)))

    def _get(self, path: str, token: Optional[str] = None) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        response = self._send(method="GET", url=path, headers=headers)
        if response.status_code != 200:
            raise error_of(response, self._connector.visible_proxy)
        return response

    def _send(self, **request: Any) -> httpx.Response:
        try:
            return self.http.request(**request)
        except httpx.HTTPError as failure:
            raise self._connector.error(failure) from None


def _embedder_text(embedder: dict[str, Any]) -> str:
    """An embedder with another model. The service does not report addresses to users; its log does."""
    fingerprint = embedder.get("fingerprint") or "no fingerprint"
    start = time_text(datetime.fromtimestamp(embedder["started_at"], timezone.utc))
    return f"{fingerprint} ({embedder['precision']} on {embedder['device']}, started at {start})"


def _compare_clock(service: str, ahead: float) -> str:
    """Checks the skew of a clock that is `ahead` seconds ahead of this machine's; its resolution is 1 s."""
    if abs(ahead) > MAX_CLOCK_SKEW_S:
        raise Failure(
            f"the clocks of the {service} and of this machine are {abs(ahead):.0f} s apart, the {service}'s is "
            f"{'ahead' if ahead > 0 else 'behind'}: synchronise them (NTP). A gateway or embedder more than "
            f"{TOLERATED_SKEW_S} s behind the auth service refuses new tokens"
        )
    return f"the {service}'s agrees with this machine's"


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.monotonic()
    result = work()
    return result, 1e3 * (time.monotonic() - start)
