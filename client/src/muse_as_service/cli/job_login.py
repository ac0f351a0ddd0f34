"""The login of a job that runs for hours, while other commands log in and out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from .. import Tokens
from .._tokens import access_claims
from .login import SavedLogin


@dataclass
class JobLogin(SavedLogin):
    """The saved login at the start of a job.

    The job continues with its tokens if another login replaces them in the file, of another service or user, and does
    not overwrite that login. It shares renewed tokens with other commands as long as the file belongs to its user.
    """

    own: Optional[Tokens] = field(default=None, repr=False)

    def load(self) -> Optional[Tokens]:
        saved = super().load()
        if saved is not None and (self.own is None or _user(saved) == _user(self.own)):
            self.own = saved
        return self.own

    def save(self, tokens: Optional[Tokens]) -> None:
        saved = super().load()
        if saved is not None and self.own is not None and _user(saved) == _user(self.own):
            super().save(tokens)
        self.own = tokens

    def is_current(self) -> bool:
        """Whether the file still contains this login."""
        saved = super().load()
        return saved is not None and self.own is not None and _user(saved) == _user(self.own)


def _user(tokens: Tokens) -> Any:
    """The user of an access token."""
    try:
        return access_claims(tokens)["sub"]
    except (IndexError, ValueError, KeyError, TypeError):
        return tokens.access
