"""The service of a job: its model, and the messages of its errors."""

from __future__ import annotations

from typing import Optional

from .. import AuthenticationError, MUSEClient, MUSEError
from .checkpoint import model_text
from .job_login import JobLogin
from .pipeline import NotResumable
from .sending import timed_out

Model = Optional[dict[str, str]]


class JobService:
    """The service of a job, which does not change."""

    def __init__(self, client: MUSEClient, login: Optional[JobLogin], field: str, timeout: float) -> None:
        """`login` is None with an API key."""
        self._client = client
        self._login = login
        self._field = field
        self._timeout = timeout

    def model(self) -> Model:
        """The description of the model; None if the service has none (release 1)."""
        try:
            return describe_model(self._client)
        except MUSEError as error:
            if error.status in (404, 405, 501):
                return None
            raise

    def identity(self, model: Model) -> Model:
        """The part of the description on which the results depend."""
        if model is None:
            return None
        # Tokens depend on the vocabulary only.
        left_out = ("dimension",) if self._field == "embedding" else ("dimension", "precision")
        return {name: value for name, value in model.items() if name not in left_out}

    def verify(self, expected: Model) -> None:
        found = self.model()
        if self.identity(found) != self.identity(expected):
            text = f"{self._client.url} changed from {model_text(self.identity(expected))}"
            text = f"{text} to {model_text(self.identity(found))} while the command ran"
            raise NotResumable(f"{text}: use --restart to start over")

    def explain(self, error: MUSEError) -> str:
        """The message for an error, with a remedy of this command."""
        url = self._client.url
        if timed_out(error):
            text = f"{url} does not respond within {self._timeout:g} s, not even to one sentence"
            return f"{text}: set a longer --timeout, or fewer requests with --in-flight"
        if isinstance(error, AuthenticationError) and self._login is not None:
            by = "" if self._login.is_current() else " ('muse logout' or another 'muse login' has replaced it)"
            return f"{error}: the login to {url} is over{by}: run 'muse login {url}'"
        return str(error)


def describe_model(client: MUSEClient) -> Model:
    """The fields of the model that identify it. A fingerprint of the weights belongs here once services have one."""
    model = client.model()
    return {
        "id": model.id,
        "version": model.version,
        "precision": model.precision,
        "dimension": str(model.dimension),
    }
