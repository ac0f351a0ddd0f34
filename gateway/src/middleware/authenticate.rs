//! Verifies the `Authorization` header of a request once, for all layers and the route.

use axum::{extract::Request, response::Response};
use muse_verifier::{Credential, Verifier};

use super::{Around, Rejection};
use crate::auth::Authenticated;

/// Adds [`Authenticated`] to requests with a valid credential. It rejects none: whether a credential
/// is required depends on the route.
#[derive(Debug, Clone)]
pub(crate) struct Authenticate(pub(crate) Verifier);

impl Around for Authenticate {
    type Context = ();

    fn before(&self, request: &mut Request) -> Result<(), Rejection> {
        if let Ok(principal) = self.0.authenticate(request.headers(), Credential::Any) {
            request.extensions_mut().insert(Authenticated(principal));
        }
        Ok(())
    }

    fn after((): (), response: Response) -> Response {
        response
    }
}
