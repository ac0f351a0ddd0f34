//! Whose token it is that a call carries, and whether it still holds.
//!
//! The auth service asks its database, not a copy of what is revoked: so processes that share one agree at any moment.

use std::{net::IpAddr, sync::Arc};

use muse_proto::{Error, Reason};
use muse_verifier::{Claims, TokenKind, Verifier};
use tonic::Request;

use crate::{
    error::database_failed,
    keys::Keys,
    store::{Store, UserRow},
};

/// The metadata in which the gateway names a client's address.
const CLIENT_ADDRESS: &str = "x-forwarded-for";

/// Checks the tokens of calls.
#[derive(Clone)]
pub(crate) struct TokenAuthenticator {
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    pub(crate) verifier: Verifier,
}

/// Who calls.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) claims: Arc<Claims>,
    pub(crate) user: UserRow,
    pub(crate) from: IpAddr,
}

impl TokenAuthenticator {
    /// The holder of the token that a call carries.
    pub(crate) async fn authenticate<T>(
        &self,
        request: &Request<T>,
        kind: Option<TokenKind>,
    ) -> Result<Session, Error> {
        let claims = self.verifier.authorize(request.metadata().as_ref(), kind)?;
        claims.record(request.extensions());
        let ids = [claims.jti.as_str(), claims.family_id()];
        if self.store.is_revoked(&ids).await.map_err(database_failed)? {
            return Err(token_revoked());
        }
        let user = self.store.user(&claims.sub).await.map_err(database_failed)?;
        let holds = |user: &UserRow| !user.disabled && user.generation <= claims.generation;
        let user = user.filter(holds).ok_or_else(token_revoked)?;
        Ok(Session { from: client_address(request), claims, user })
    }
}

/// The address of the user's machine, as the gateway says, or else that of whoever calls.
pub(crate) fn client_address<T>(request: &Request<T>) -> IpAddr {
    let named =
        request.metadata().get(CLIENT_ADDRESS).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let caller = || request.remote_addr().map(|address| address.ip());
    named.or_else(caller).unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

pub(crate) fn token_revoked() -> Error {
    Error::new(Reason::TokenRevoked, "Token has been revoked")
}
