//! Which credentials a route accepts, and whom they identify.

use std::sync::Arc;

use http::Extensions;
use muse_proto::{Error, Reason};
use muse_telemetry::request_telemetry::{Caller, RequestContext};

use crate::{
    api_keys::VerifiedKey,
    claims::{Claims, TokenKind},
};

/// What a route requires of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// A token of this kind.
    Token(TokenKind),
    /// An access token or a refresh token.
    AnyToken,
    /// An access token or an API key.
    AccessTokenOrKey,
    /// An API key.
    Key,
    /// Any of these.
    Any,
}

impl Credential {
    /// The kind of token that is accepted; `None` for all.
    #[must_use]
    pub fn token_kind(self) -> Option<TokenKind> {
        match self {
            Self::Token(kind) => Some(kind),
            Self::AccessTokenOrKey => Some(TokenKind::Access),
            Self::AnyToken | Self::Key | Self::Any => None,
        }
    }

    /// Whether this principal's credential is accepted.
    #[must_use]
    pub fn accepts(self, principal: &Principal) -> bool {
        match principal {
            Principal::Key(_) => self.accepts_keys(),
            Principal::Token(_) if self == Self::Key => false,
            Principal::Token(claims) => self.token_kind().is_none_or(|kind| kind == claims.kind),
        }
    }

    /// Whether API keys are accepted.
    #[must_use]
    pub fn accepts_keys(self) -> bool {
        matches!(self, Self::AccessTokenOrKey | Self::Key | Self::Any)
    }
}

/// Whom a verified credential identifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The user of a token.
    Token(Arc<Claims>),
    /// An API key.
    Key(VerifiedKey),
}

impl Principal {
    /// The name of the user whom the calls count for: that of the token, or the owner of the key.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Token(claims) => &claims.sub,
            Self::Key(key) => &key.owner,
        }
    }

    /// Whether the calls are a bulk job: those with a bulk key.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(self, Self::Key(key) if key.bulk)
    }

    /// The claims of a token.
    ///
    /// # Errors
    ///
    /// [`Reason::PermissionDenied`] for an API key.
    pub fn claims(&self) -> Result<&Arc<Claims>, Error> {
        match self {
            Self::Token(claims) => Ok(claims),
            Self::Key(_) => Err(key_not_accepted()),
        }
    }

    /// Records the caller in the telemetry of the request with these extensions.
    pub fn record(&self, extensions: &Extensions) {
        match self {
            Self::Token(claims) => claims.record(extensions),
            // Its rights are those of a user, whoever the owner is.
            Self::Key(key) => RequestContext::record_caller(extensions, Caller::User, &key.owner),
        }
    }
}

/// The error of an API key where only tokens are accepted.
#[must_use]
pub fn key_not_accepted() -> Error {
    Error::new(
        Reason::PermissionDenied,
        "An API key does not permit this: it is for embedding and tokenizing. Log in and use an access token",
    )
}

/// The error of a token where only API keys are accepted.
#[must_use]
pub fn token_not_accepted() -> Error {
    Error::new(Reason::TokenKind, "Only API keys are allowed")
}
