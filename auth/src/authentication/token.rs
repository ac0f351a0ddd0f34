//! Authentication of calls by their tokens.
//!
//! The auth service reads revocations from its database, not from a copy in memory, so processes
//! that share a database agree at any time.

use std::{net::IpAddr, sync::Arc};

use muse_proto::{Error, Reason};
use muse_verifier::{Claims, TokenKind, Verifier, api_keys::is_api_key, bearer, key_not_accepted};
use tonic::Request;

use crate::{
    Role,
    audit::AuditEvent,
    error::database_failed,
    keys::KeyringReceiver,
    store::{Store, UserRow},
};

/// Metadata in which the gateway sends the address of the client.
const CLIENT_ADDRESS: &str = "x-forwarded-for";

/// Authenticates calls by their tokens.
#[derive(Clone)]
pub(crate) struct TokenAuthenticator {
    pub(crate) store: Store,
    pub(crate) keys: KeyringReceiver,
    pub(crate) verifier: Verifier,
}

/// The authenticated caller of a call.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) claims: Arc<Claims>,
    pub(crate) user: UserRow,
    pub(crate) from: IpAddr,
}

impl Session {
    /// An audit event of this caller, about `user` if that is another one.
    pub(crate) fn audit_event<'a>(&'a self, action: &'a str, user: Option<&'a str>) -> AuditEvent<'a> {
        AuditEvent { action, by: Some(&self.user.username), user, from: Some(self.from) }
    }

    /// Returns an error unless the caller is an admin, by the role in the database.
    pub(crate) fn require_admin(&self) -> Result<(), Error> {
        if self.user.role() == Role::Admin { Ok(()) } else { Err(admin_required()) }
    }
}

impl TokenAuthenticator {
    /// Verifies the token of a call, and that neither the token nor its user was revoked.
    pub(crate) async fn authenticate<T>(
        &self,
        request: &Request<T>,
        kind: Option<TokenKind>,
    ) -> Result<Session, Error> {
        let authorization = bearer::authorization(request.metadata().as_ref());
        let credential = bearer::token(authorization.as_deref())?;
        if is_api_key(credential) {
            return Err(key_not_accepted());
        }
        let claims = self.verifier.verify(credential, kind)?;
        claims.record(request.extensions());
        let ids = [claims.jti.as_str(), claims.family_id()];
        if self.store.is_revoked(&ids).await.map_err(database_failed)? {
            return Err(token_revoked());
        }
        let user = self.store.user(&claims.sub).await.map_err(database_failed)?;
        let user = user.filter(|user| user.accepts(&claims)).ok_or_else(token_revoked)?;
        Ok(Session { from: client_address(request), claims, user })
    }
}

/// The address of the client as the gateway sends it, otherwise the peer's.
pub(crate) fn client_address<T>(request: &Request<T>) -> IpAddr {
    let forwarded =
        request.metadata().get(CLIENT_ADDRESS).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let peer = || request.remote_addr().map(|address| address.ip());
    forwarded.or_else(peer).unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

/// The error of a caller who is not an admin.
pub(crate) fn admin_required() -> Error {
    Error::new(Reason::PermissionDenied, "This requires the role admin")
}

pub(crate) fn token_revoked() -> Error {
    Error::new(Reason::TokenRevoked, "Token has been revoked")
}
