"""A picklable embedder, for data engines that run Python functions on batches in many processes."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, get_args

import numpy as np
import numpy.typing as npt

from . import _fork
from ._address import base_url
from ._calls import Vectors
from ._checks import checked_concurrency, checked_key
from ._chunking import MAX_SENTENCES
from ._client import MUSEClient
from ._fingerprint import checked_fingerprint
from ._sentences import check, check_text, is_missing, items
from ._transfer import API_KEY_VARIABLE
from .errors import AuthenticationError

OnError = Literal["raise", "null"]


@dataclass(frozen=True)
class Embedded:
    """Vectors, and the reasons for those that are missing."""

    vectors: Vectors
    """An array (texts, 512). The rows of texts without a vector are NaN."""
    reasons: list[Optional[str]]
    """For each text why it has no vector; None if it has one."""
    fingerprint: Optional[str] = None
    """The fingerprint of the model that computed the vectors; None if there are none, and for older services."""

    def to_pylist(self) -> list[Optional[list[float]]]:
        """The vectors as lists; None for those that are missing."""
        rows: list[Optional[list[float]]] = list(self.vectors.tolist())
        return [row if reason is None else None for row, reason in zip(rows, self.reasons)]

    def to_arrow(self) -> Any:
        """The vectors as a `pyarrow.FixedSizeListArray`, with nulls for those that are missing."""
        import pyarrow

        # numpy's mask is true for a null.
        missing = np.array([reason is not None for reason in self.reasons], bool)
        values = pyarrow.array(np.ascontiguousarray(self.vectors).reshape(-1))
        size = self.vectors.shape[1]
        if not missing.any():
            return pyarrow.FixedSizeListArray.from_arrays(values, size)
        return pyarrow.FixedSizeListArray.from_arrays(values, size, mask=pyarrow.array(missing))


class Embedder:
    """Converts batches of texts to vectors, in any number of processes and threads.

        embedder = Embedder("http://localhost:5000", api_key="muse_…")
        vectors = embedder(["Where is the library?", "¿Dónde está la biblioteca?"])  # an array (2, 512) of float32

    It connects in the process that calls it. All embedders of a process with the same arguments share one client, so an
    engine may unpickle one for each batch. A pickled embedder contains its credential.
    """

    def __init__(
        self,
        url: str = "http://localhost:5000",
        *,
        api_key: Optional[str] = None,
        username: Optional[str] = None,
        password: Optional[str] = None,
        grpc: bool = False,
        ca_file: Optional[str] = None,
        deadline: float = 300.0,
        timeout: Optional[float] = 60.0,
        concurrency: int = 4,
        batch_size: int = MAX_SENTENCES,
        dtype: npt.DTypeLike = np.float32,
        on_error: OnError = "raise",
        fingerprint: Optional[str] = None,
    ) -> None:
        """Does not connect.

        :param url: URL of the service
        :param api_key: API key (`muse_…`); default: the environment variable `MUSE_API_KEY`, here or else in the
            process that connects
        :param username: logs in in each process, instead of an API key
        :param password: password of the user
        :param grpc: use gRPC instead of REST
        :param ca_file: PEM file with the CA certificates to trust, which each machine must have
        :param deadline: seconds after which a request that fails is not repeated any more
        :param timeout: seconds to wait for each response; None for no limit
        :param concurrency: the number of simultaneous requests of a process, from 1 to 64
        :param batch_size: the number of texts in a request, at most 512
        :param dtype: data type of the vectors
        :param on_error: `"raise"`, or `"null"` for NaN instead of the vectors of texts that are null or too long
        :param fingerprint: the fingerprint (`Model.fingerprint`) that the model of the service must have, so that all
            processes return vectors of one model; otherwise a call raises `FingerprintMismatchError`
        """
        self.url = base_url("", 0, url)
        if (username is None) != (password is None) or (username is not None and api_key is not None):
            raise ValueError("pass either api_key, or username and password")
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error is raise or null, not {on_error!r}")
        if not 1 <= batch_size <= MAX_SENTENCES:
            raise ValueError(f"batch_size is between 1 and {MAX_SENTENCES}, not {batch_size}")
        if username is None:
            api_key = checked_key(api_key if api_key is not None else os.environ.get(API_KEY_VARIABLE))
        kind = np.dtype(dtype)
        if kind.kind != "f":
            raise TypeError(f"dtype must be a floating-point type such as float32, not {kind}")
        self._on_error = on_error
        self._concurrency = checked_concurrency(concurrency)
        self._batch_size = batch_size
        # The process that connects may have another working directory.
        ca_file = None if ca_file is None else os.path.abspath(ca_file)  # noqa: PTH100
        self._settings = _Settings(
            self.url,
            api_key,
            username,
            password,
            grpc,
            ca_file,
            deadline,
            timeout,
            kind.str,
            concurrency,
            checked_fingerprint(fingerprint),
        )

    def __call__(self, texts: Any) -> Vectors:
        """Returns the vectors of a batch of texts, in their order: an array (texts, 512).

        :param texts: a list, a numpy array, an Arrow array or a pandas or polars Series of strings
        """
        return self.embed(texts).vectors

    def embed(self, texts: Any) -> Embedded:
        """Returns the vectors of a batch of texts, and the reasons for those that are missing."""
        if self._on_error == "raise":
            sentences, reasons = check(texts), None
        else:
            sentences, reasons = _without_missing(items(texts))
        vectors, fingerprint = self._embed(sentences, reasons)
        found = [(reasons or {}).get(position) for position in range(len(sentences))]
        return Embedded(vectors, found, fingerprint)

    def __repr__(self) -> str:
        return f"Embedder({self.url!r})"

    def _embed(self, sentences: list[str], reasons: Optional[dict[int, str]]) -> tuple[Vectors, Optional[str]]:
        client = _client_of(self._settings)
        try:
            return client._embed_batch(sentences, self._batch_size, self._concurrency, reasons)
        except AuthenticationError:
            if self._settings.username is None:
                raise
        # The login has expired since the last batch.
        client.login(self._settings.username, self._settings.password or "")
        return client._embed_batch(sentences, self._batch_size, self._concurrency, reasons)


@dataclass(frozen=True)
class _Settings:
    """What a client depends on."""

    url: str
    api_key: Optional[str] = field(repr=False)
    username: Optional[str]
    password: Optional[str] = field(repr=False)
    grpc: bool
    ca_file: Optional[str]
    deadline: float
    timeout: Optional[float]
    dtype: str
    concurrency: int
    fingerprint: Optional[str]

    def open(self) -> MUSEClient:
        if self.username is None and not (self.api_key or os.environ.get(API_KEY_VARIABLE)):
            text = f"no credential: pass api_key, or username and password, or set {API_KEY_VARIABLE} in this process"
            raise AuthenticationError(text, reason="TOKEN_MISSING")
        client = MUSEClient(
            url=self.url,
            grpc=self.grpc,
            ca_file=self.ca_file,
            timeout=self.timeout,
            retry_for=self.deadline,
            dtype=self.dtype,
            api_key="" if self.username is not None else self.api_key,
            fingerprint=self.fingerprint,
        )
        client._max_requests = self.concurrency
        if self.username is not None:
            client.login(self.username, self.password or "")
        return client


class _Clients:
    """The clients of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[_Settings, MUSEClient] = {}
        _fork.register(self)

    def get(self, settings: _Settings) -> MUSEClient:
        with self._lock:
            if settings not in self._clients:
                self._clients[settings] = settings.open()
            return self._clients[settings]

    def _after_fork(self) -> object:
        # Another thread may hold the lock. The clients separate their connections themselves.
        self._lock = threading.Lock()
        return None


_client_of = _Clients().get


def _without_missing(texts: list[Any]) -> tuple[list[str], dict[int, str]]:
    """The texts with empty strings for those that cannot be sent, and the reasons by their position."""
    sentences, reasons = [], {}
    for position, text in enumerate(texts):
        if isinstance(text, str):
            try:
                check_text(text, position)
            except ValueError:
                reasons[position] = "not valid text: it contains an unpaired surrogate"
        elif is_missing(text):
            reasons[position] = "null"
        else:
            raise TypeError(f"texts[{position}] must be a string, not {type(text).__name__}")
        sentences.append("" if position in reasons else text)
    return sentences, reasons
