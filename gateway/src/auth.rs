//! Credentials: each route requires an access token, unless it is registered otherwise. Routes for embedding and tokenizing
//! accept an API key, too.
//!
//! Every API registers its routes with [`Routes`], so that a route without a credential cannot be added by omission. The order of the
//! checks is that of muse_as_service 1.1: path, method, credential, arguments.

use axum::{
    Router,
    extract::{FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use muse_proto::{Error, Reason};
pub(crate) use muse_verifier::Credential;
use muse_verifier::{Claims, Principal, TokenKind, Verifier};
use tracing::error;

use crate::{
    Cookies, cookies,
    middleware::{Around, AroundLayer, Rejection, client_address},
};

/// The routes of an API.
#[derive(Debug)]
pub(crate) struct Routes<S> {
    router: Router<S>,
    verifier: Verifier,
    cookies: Cookies,
    rejects_cross_site: bool,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes. Tokens in cookies are accepted unless `cookies` is [`Cookies::Off`].
    pub(crate) fn new(verifier: &Verifier, cookies: Cookies) -> Self {
        Self { router: Router::new(), verifier: verifier.clone(), cookies, rejects_cross_site: false }
    }

    /// Requests that pages of other sites send with a cookie are rejected on the routes that follow.
    /// The cookies are `SameSite=Strict`; this is for browsers that do not know it, and for pages of
    /// other hosts of the same site.
    pub(crate) fn rejecting_cross_site(self) -> Self {
        Self { rejects_cross_site: true, ..self }
    }

    /// Adds a route that requires an access token.
    pub(crate) fn route(self, path: &str, methods: MethodRouter<S>) -> Self {
        self.route_with(Credential::Token(TokenKind::Access), path, methods)
    }

    /// Adds a route that requires another credential.
    pub(crate) fn route_with(mut self, credential: Credential, path: &str, methods: MethodRouter<S>) -> Self {
        let layer = RequireCredential {
            credential,
            verifier: self.verifier.clone(),
            cookies: self.cookies,
            rejects_cross_site: self.rejects_cross_site,
        };
        // Not for the fallback: other methods are rejected before the credential is verified.
        self.router = self.router.route(path, methods.route_layer(AroundLayer(layer)));
        self
    }

    /// Adds a route that anybody may call.
    pub(crate) fn public_route(mut self, path: &str, methods: MethodRouter<S>) -> Self {
        self.router = self.router.route(path, methods);
        self
    }

    pub(crate) fn with_state(self, state: S) -> ApiRouter {
        ApiRouter(self.router.with_state(state))
    }
}

/// The router of one or several APIs, which only [`Routes`] creates.
#[derive(Debug)]
pub(crate) struct ApiRouter(Router);

impl ApiRouter {
    /// Adds the routes of another API.
    pub(crate) fn merge(self, other: Self) -> Self {
        Self(self.0.merge(other.0))
    }

    pub(crate) fn into_router(self) -> Router {
        self.0
    }
}

/// In the extensions of a request whose `Authorization` header has been verified: whom it identifies.
#[derive(Debug, Clone)]
pub(crate) struct Authenticated(pub(crate) Principal);

/// The user of a request, whose token was verified, or the owner of its API key.
#[derive(Debug, Clone)]
pub(crate) struct User(Principal);

impl User {
    /// The user's name.
    pub(crate) fn name(&self) -> &str {
        self.0.user()
    }

    /// The claims of the token.
    ///
    /// # Errors
    ///
    /// [`Reason::PermissionDenied`] for an API key.
    pub(crate) fn claims(&self) -> Result<&Claims, Error> {
        self.0.claims().map(|claims| &**claims)
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
    rejects_cross_site: bool,
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
        let kind = self.credential.token_kind().filter(|_| self.cookies != Cookies::Off);
        let mut accepted = self.credential;
        if let Some(kind) = kind
            && use_cookie(kind, request)?
        {
            // Cookies contain tokens only.
            accepted = Credential::Token(kind);
            if self.rejects_cross_site && !cookies::is_same_origin(request) {
                let text = "A page of another site must not use a cookie here";
                return Err(Error::new(Reason::PermissionDenied, text));
            }
        }
        let principal = match request.extensions_mut().remove() {
            // A layer has verified it. If it is not accepted here, the error is found below.
            Some(Authenticated(principal)) if accepted.accepts(&principal) => principal,
            _ => self.verifier.authenticate(request.headers(), accepted)?,
        };
        principal.record(request.extensions());
        if let Principal::Key(key) = &principal
            && let Some(address) = client_address::address_of(request.headers())
        {
            self.verifier.record_use(key, address);
        }
        request.extensions_mut().insert(User(principal));
        Ok(())
    }
}

/// Turns the cookie with the token into an `Authorization` header if there is none. Returns whether
/// it did.
fn use_cookie(kind: TokenKind, request: &mut Request) -> Result<bool, Error> {
    let headers = request.headers_mut();
    if headers.contains_key(header::AUTHORIZATION) || !headers.contains_key(header::COOKIE) {
        return Ok(false);
    }
    let name = cookies::name(kind);
    match cookies::value(headers, name).map(cookies::bearer) {
        Some(Ok(credentials)) => drop(headers.insert(header::AUTHORIZATION, credentials)),
        Some(Err(_)) | None => {
            return Err(Error::new(Reason::TokenMissing, format!("Missing cookie \"{name}\"")));
        }
    }
    Ok(true)
}
