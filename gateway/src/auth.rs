//! Credentials: each route requires an access token, unless it is registered otherwise.
//!
//! Every API registers its routes with [`Routes`], so that a route without a credential cannot be added by omission. The order of the
//! checks is that of muse_as_service 1.1: path, method, credential, arguments.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use muse_proto::{Error, Reason};
use muse_verifier::{Claims, TokenKind, Verifier};
use tracing::error;

use crate::{
    Cookies, cookies,
    middleware::{Around, AroundLayer, Rejection},
};

/// What a route requires of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A token of this kind.
    Token(TokenKind),
    /// An access token or a refresh token.
    AnyToken,
}

/// The routes of an API.
#[derive(Debug)]
pub(crate) struct Routes<S> {
    router: Router<S>,
    verifier: Verifier,
    cookies: Cookies,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes. Tokens in cookies are accepted unless `cookies` is [`Cookies::Off`].
    pub(crate) fn new(verifier: &Verifier, cookies: Cookies) -> Self {
        Self { router: Router::new(), verifier: verifier.clone(), cookies }
    }

    /// Adds a route that requires an access token.
    pub(crate) fn route(self, path: &str, methods: MethodRouter<S>) -> Self {
        self.route_with(Credential::Token(TokenKind::Access), path, methods)
    }

    /// Adds a route that requires another credential.
    pub(crate) fn route_with(mut self, credential: Credential, path: &str, methods: MethodRouter<S>) -> Self {
        let layer = RequireCredential { credential, verifier: self.verifier.clone(), cookies: self.cookies };
        // Not for the fallback: other methods are rejected before the credential is verified.
        self.router = self.router.route(path, methods.route_layer(AroundLayer(layer)));
        self
    }

    /// Adds a route that anybody may call.
    pub(crate) fn public_route(mut self, path: &str, methods: MethodRouter<S>) -> Self {
        self.router = self.router.route(path, methods);
        self
    }

    pub(crate) fn with_state(self, state: S) -> Router {
        self.router.with_state(state)
    }
}

/// The user of a request, whose credential was verified. Its claims are those of the token.
#[derive(Debug, Clone)]
pub(crate) struct User(pub(crate) Arc<Claims>);

impl User {
    /// The user's name.
    pub(crate) fn name(&self) -> &str {
        &self.0.sub
    }
}

/// Denies the request if its route requires no credential: such a route has no user.
impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            error!(path = parts.uri.path(), "the route of a handler with a user requires no credential");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        })
    }
}

/// Rejects requests without a valid credential, and adds the [`User`] to the others.
#[derive(Debug, Clone)]
struct RequireCredential {
    credential: Credential,
    verifier: Verifier,
    cookies: Cookies,
}

impl Around for RequireCredential {
    type Context = ();

    fn before(&self, request: &mut Request) -> Result<(), Rejection> {
        self.verify(request).map_err(Rejection::Error)
    }

    fn after((): (), response: Response) -> Response {
        response
    }
}

impl RequireCredential {
    fn verify(&self, request: &mut Request) -> Result<(), Error> {
        let kind = match self.credential {
            Credential::Token(kind) => Some(kind),
            Credential::AnyToken => None,
        };
        if let Some(kind) = kind.filter(|_| self.cookies != Cookies::Off) {
            use_cookie(kind, request)?;
        }
        let claims = self.verifier.authorize(request.headers(), kind)?;
        claims.record(request.extensions());
        request.extensions_mut().insert(User(claims));
        Ok(())
    }
}

/// Turns the cookie with the token into an `Authorization` header if there is none.
fn use_cookie(kind: TokenKind, request: &mut Request) -> Result<(), Error> {
    let headers = request.headers_mut();
    if headers.contains_key(header::AUTHORIZATION) || !headers.contains_key(header::COOKIE) {
        return Ok(());
    }
    let name = cookies::name(kind);
    match cookies::value(headers, name).map(cookies::bearer) {
        Some(Ok(credentials)) => drop(headers.insert(header::AUTHORIZATION, credentials)),
        Some(Err(_)) | None => {
            return Err(Error::new(Reason::TokenMissing, format!("Missing cookie \"{name}\"")));
        }
    }
    Ok(())
}
