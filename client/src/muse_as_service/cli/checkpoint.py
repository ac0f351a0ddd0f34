"""The checkpoint of a job: which command started it, and how far its results are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from . import Failure, OtherModel
from .files import beside
from .inputs import BadRow, Row

# Before version 3 the model had no fingerprint.
VERSION = 3
# The beginning of every checkpoint. It distinguishes ours from files of other programs.
MAGIC = '{"muse_checkpoint":'
# Before release 2.0 the checkpoint had no version.
OLD_MAGIC = '{"purpose": "muse '

Item = Union[Row, BadRow]


def new_digest() -> Any:
    return hashlib.blake2b(digest_size=16)


@dataclass(frozen=True)
class Identity:
    """What must not change while a job is interrupted."""

    settings: Mapping[str, str]
    """The options that determine the results, by name."""
    model: Optional[Mapping[str, str]]
    """The service's description of its model; None if the service has none."""
    service: str
    """The URL. It may change: the service may have moved."""


@dataclass(frozen=True)
class Position:
    """How far a job is."""

    read: int = 0
    """Rows of the input that are done, including skipped ones."""
    rows: int = 0
    """Rows of the output."""
    skipped: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    """The valid bytes of each stream."""
    digest: Any = field(default_factory=new_digest)
    """A hash of the rows that are done, to detect a different input."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file."""

    settings: dict[str, str]
    model: Optional[dict[str, str]]
    service: str
    position: Position
    """Its digest is a string."""
    publishing: Optional[list[str]]
    """The streams whose files, besides the main one, are complete and are being renamed. None before the end."""

    def check(self, identity: Identity, path: Path) -> None:
        """Raises `Failure` if the results cannot be continued by a command with this identity."""
        for name, new in identity.settings.items():
            old = self.settings.get(name)
            if old != new:
                started = f"'{old}', not by '{new}'" if name == "command" else f"{name} {old}, not {new}"
                by = "by" if name == "command" else "with"
                text = f"{path} was started {by} {started}"
                raise Failure(f"{text}: use the same options, or --restart to start over")
        old_model, new_model = model_text(self.model), model_text(identity.model)
        if old_model != new_model:
            text = f"{path} contains results of {old_model}, but {identity.service} has {new_model}"
            remedy = "run the command again when the service has that model, or use --restart to start over"
            raise OtherModel(f"{text} now: {remedy}")


def model_text(model: Optional[Mapping[str, str]]) -> str:
    """The names of a model, for messages and for comparison."""
    return "an unknown model" if model is None else "the model " + " ".join(value for value in model.values() if value)


def read_checkpoint(path: Path) -> Optional[Checkpoint]:
    """Returns the checkpoint in a file; None if there is none. Raises `Failure` for a file of another program."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        text = "?"
    if not text:
        return None
    if text.startswith(OLD_MAGIC):
        raise Incompatible(f"{path} is of an older version of muse: use --restart to start over")
    if not text.startswith(MAGIC):
        raise Failure(f"{path} is not a file of muse: rename or remove it")
    try:
        found = json.loads(text)
        if found["muse_checkpoint"] != VERSION:
            text = f"{path} is of another version of muse"
            raise Incompatible(f"{text}: finish the job with that version, or use --restart to start over")
        position = Position(found["read"], found["rows"], found["skipped"], found["bytes"], found["digest"])
        return Checkpoint(found["settings"], found["model"], found["service"], position, found["publishing"])
    except (ValueError, KeyError, TypeError):
        raise Incompatible(f"{path} is damaged: use --restart to start over") from None


class Incompatible(Failure):
    """A checkpoint of muse that cannot be continued, but discarded."""


def write_checkpoint(
    path: Path, identity: Identity, position: Position, publishing: Optional[Sequence[str]] = None
) -> None:
    """Replaces a checkpoint atomically."""
    content = {
        "muse_checkpoint": VERSION,
        "settings": identity.settings,
        "model": identity.model,
        "service": identity.service,
        "read": position.read,
        "rows": position.rows,
        "skipped": position.skipped,
        "bytes": position.sizes,
        "digest": position.digest.hexdigest(),
        "publishing": publishing,
    }
    new = temporary(path)
    with new.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content))
        file.flush()
        # After a power failure the file could be empty otherwise.
        os.fsync(file.fileno())
    new.replace(path)


def temporary(path: Path) -> Path:
    return beside(path, "new")


def is_unfinished_checkpoint(path: Path) -> bool:
    """Whether a file is the beginning of a checkpoint, whose writer was killed."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    return MAGIC.encode().startswith(start)


def digested(items: Iterable[Item]) -> bytes:
    """The bytes of rows that the digest covers: their sentences and their columns to keep."""
    parts = []
    for item in items:
        if isinstance(item, BadRow):
            parts.append(b"\xff" * 8)
            continue
        text = item.sentence.encode()
        parts += len(text).to_bytes(8, "little"), text
        if item.kept:
            parts.append(repr(item.kept).encode("utf-8", "backslashreplace"))
    return b"".join(parts)
