//! Who requests a change. The requester is verified in the transaction of the change.

use std::sync::Arc;

use muse_verifier::Claims;
use sea_orm::{ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter};

use super::{UserRow, entities::user, revocations};
use crate::Role;

/// What a change requires of its requester.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// The role admin.
    Admin,
    /// The role admin, or to be the user who is changed or who owns what is changed.
    AdminOrSelf,
}

/// The user who requests a change, by the claims of the token.
#[derive(Debug, Clone)]
pub(crate) struct Requester {
    pub(crate) claims: Arc<Claims>,
    pub(crate) permission: Permission,
}

/// Why a requester may not make a change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unauthorized {
    #[error("the token of the requester was revoked")]
    TokenRevoked,
    #[error("the requester is not an admin")]
    NotAdmin,
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Verifies as of now that the requester may change the user `owner`, or what belongs to that user:
/// since the authentication of the call the token or its user may have been revoked, and an admin
/// may have become a user. `None` is the operator.
pub(super) async fn authorize(
    change: &DatabaseTransaction,
    requester: Option<&Requester>,
    owner: &str,
) -> Result<(), Unauthorized> {
    let Some(Requester { claims, permission }) = requester else { return Ok(()) };
    let user = user_of_token(change, claims).await?.ok_or(Unauthorized::TokenRevoked)?;
    let is_self = *permission == Permission::AdminOrSelf && user.username == owner;
    if user.role() == Role::Admin || is_self { Ok(()) } else { Err(Unauthorized::NotAdmin) }
}

/// The user of a token as of now; `None` if the token or its user was revoked since the
/// authentication of the call.
async fn user_of_token(change: &DatabaseTransaction, claims: &Claims) -> Result<Option<UserRow>, DbErr> {
    if revocations::any_revoked(change, &[&claims.jti, claims.family_id()]).await? {
        return Ok(None);
    }
    let user = user::Entity::find().filter(user::Column::Username.eq(claims.sub.as_str())).one(change);
    Ok(user.await?.filter(|user| user.accepts(claims)))
}
