"""The service of a job: its model, which must not change, and the messages of its errors."""

from __future__ import annotations

import argparse
from typing import Optional

from .. import AuthenticationError, FingerprintMismatchError, MUSEClient, MUSEError
from . import Failure, OtherModel
from .checkpoint import model_text
from .job_login import JobLogin
from .pipeline import NotResumable
from .sending import timed_out

Model = Optional[dict[str, str]]


class JobService:
    """The service of a job.

    All results are of the model that the service has at the start. A service with fingerprints rejects requests that
    require another one, and each response has that of its model. For an older service the model is compared before
    each checkpoint.
    """

    def __init__(self, client: MUSEClient, login: Optional[JobLogin], options: argparse.Namespace) -> None:
        """`login` is None with an API key."""
        self._client = client
        self._login = login
        self._field: str = options.field
        self._timeout: float = options.timeout
        self._required: Optional[str] = options.fingerprint
        self._model: Model = None
        self._opened = False

    def open(self) -> Model:
        """Returns the description of the model, which all further responses must be of; None if the service has no
        description (release 1). Raises `Failure`."""
        try:
            self._model = self._describe()
        except MUSEError as error:
            raise self.explain(error) from None
        fingerprint = (self._model or {}).get("fingerprint")
        if self._required is not None and fingerprint is None:
            raise OtherModel(f"{self._client.url} reports no fingerprint, where --fingerprint is {self._required}")
        self._client._session.require(fingerprint)
        self._opened = True
        return self._model

    def identity(self, model: Model) -> Model:
        """The part of the description on which the results depend."""
        if model is None:
            return None
        # Tokens depend on the vocabulary only. Nothing but the fingerprint identifies it, if there is one.
        left_out = ("dimension",) if self._field == "embedding" else ("dimension", "precision")
        return {name: value for name, value in model.items() if name not in left_out}

    def verify(self) -> None:
        """Raises `NotResumable` if the results since the last verification may be of another model."""
        if self._model is not None and "fingerprint" in self._model:
            # The client has compared that of each response.
            return
        found = self._describe()
        if self.identity(found) != self.identity(self._model):
            text = f"{self._client.url} changed from {model_text(self.identity(self._model))}"
            text = f"{text} to {model_text(self.identity(found))} while the command ran"
            raise NotResumable(f"{text}: use --restart to start over")

    def explain(self, error: MUSEError) -> Failure:
        """The failure for an error, with a remedy of this command."""
        url = self._client.url
        if isinstance(error, FingerprintMismatchError):
            return OtherModel(self._mismatch(error))
        if timed_out(error):
            text = f"{url} does not respond within {self._timeout:g} s, not even to one sentence"
            return Failure(f"{text}: set a longer --timeout, or fewer requests with --in-flight")
        if isinstance(error, AuthenticationError) and self._login is not None:
            by = "" if self._login.is_current() else " ('muse logout' or another 'muse login' has replaced it)"
            return Failure(f"{error}: the login to {url} is over{by}: run 'muse login {url}'")
        return Failure(str(error))

    def _mismatch(self, error: FingerprintMismatchError) -> str:
        found = "does not report the fingerprint of its model"
        if error.found is not None:
            found = f"has the model with the fingerprint {error.found}"
        if not self._opened:
            return f"{self._client.url} {found}, where --fingerprint is {error.expected}"
        return f"{self._client.url} {found} now, where the results of this command are of {error.expected}"

    def _describe(self) -> Model:
        try:
            model = self._client.model()
        except MUSEError as error:
            if error.status in (404, 405, 501):
                return None
            raise
        fields = {
            "id": model.id,
            "version": model.version,
            "precision": model.precision,
            "dimension": str(model.dimension),
        }
        return fields if model.fingerprint is None else {**fields, "fingerprint": model.fingerprint}
